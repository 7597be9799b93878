"""select_checkpoint: the stage as a whole, on files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages import select_checkpoint
from stages.common.errors import InputError, JudgeError
from stages.common.files import empty_table, read_table, write_table
from stages.common.params import load_params
from stages.core.judging import Choice, Comparison, Grade, Submission
from stages.schema import EPOCH_GRADE, EPOCH_RESPONSE, PERPLEXITY, PROMPT, STANDING, VERDICT
from stages.select_checkpoint import Frames, Params, copy_model
from tests.judged_run import DEV_ANSWERS, command, epoch_responses, prompts, with_model, write_model, write_run
from tests.runtime.chat_server import completion, serving

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_the_best_epoch_becomes_a_complete_model_folder() -> None:
    select_checkpoint.main("curated")
    grades = read_table(Path("data/select_checkpoint/curated.parquet"), EPOCH_GRADE)
    assert grades.group_by("epoch").agg(pl.col("helpfulness").sum()).sort("epoch").rows() == [
        (5, 3),
        (10, 18),
        (15, 13),
    ]
    standing = read_table(Path("data/select_checkpoint/curated.standing.parquet"), STANDING)
    assert standing.select("epoch", "by", "n", "taken").rows() == [
        (5, "grade", 3, False),
        (10, "grade", 3, True),
        (15, "grade", 3, False),
    ]
    assert standing["quality"].to_list() == pytest.approx([1, 6, 13 / 3])
    assert standing["behind"].to_list() == pytest.approx([5, 0, 5 / 3])
    assert standing["error"].to_list() == pytest.approx([0, 0, 5 / 3])
    taken, source = Path("models/selected/curated"), Path("models/sft/curated/epoch_10")
    assert {path.name: path.read_bytes() for path in taken.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    assert all((taken / path.name).samefile(path) for path in source.iterdir())  # hard links: no second copy


def test_running_again_replaces_the_folder() -> None:
    select_checkpoint.main("curated")
    Path("models/selected/curated/stray").write_text("x")
    write_table(Path("data/generate/curated.parquet"), epoch_responses("curated", {5: DEV_ANSWERS[10]}), EPOCH_RESPONSE)
    select_checkpoint.main("curated")
    assert sorted(path.name for path in Path("models/selected/curated").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip
    assert "curated 5" in Path("models/selected/curated/config.json").read_text()
    assert [path.name for path in Path("models/selected").iterdir()] == ["curated"]


def test_without_references_the_earliest_epoch_is_taken_and_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(Path("data/prompts/dev.parquet"), prompts("dev", 3, n_bare=3), PROMPT)
    select_checkpoint.main("curated")
    assert "curated 5" in Path("models/selected/curated/config.json").read_text()
    assert "warning: curated: 'reference': fewer than two of the dev prompts are judged" in capsys.readouterr().err


def test_an_annotator_that_always_fails_is_an_error() -> None:
    def fail(submissions: list[Submission]) -> list[Grade]:
        return [Grade(None, None, unscored_reason="truncated") for _ in submissions]

    frames = Frames(prompts("dev", 3, n_bare=0), epoch_responses("x", DEV_ANSWERS), empty_table(PERPLEXITY))
    with pytest.raises(JudgeError, match=r"x\.parquet: .* got 9 of 9 unscored by 'gpt' \(mostly truncated\)"):
        select_checkpoint.run(frames, Params(by="grade", annotators=["gpt"]), arm="x", graders={"gpt": fail})


def test_a_comparer_that_always_fails_is_an_error() -> None:
    def fail(comparisons: list[Comparison]) -> list[Choice]:
        return [Choice(None, "empty") for _ in comparisons]

    frames = Frames(prompts("dev", 3, n_bare=0), epoch_responses("x", DEV_ANSWERS), empty_table(PERPLEXITY))
    with pytest.raises(JudgeError, match=r"x\.verdicts\.parquet: .* got 18 of 18 unscored by 'gpt'"):
        select_checkpoint.run(frames, Params(by="pairs", annotators=["gpt"]), arm="x", comparers={"gpt": fail})


def choose(**changes: Any) -> None:
    params = json.loads(Path("params.yaml").read_text())
    params["select_checkpoint"] |= changes
    Path("params.yaml").write_text(json.dumps(params))
    select_checkpoint.main("curated")


def test_a_round_robin_compares_every_two_epochs_in_both_orders() -> None:
    choose(by="pairs")
    verdicts = read_table(Path("data/select_checkpoint/curated.verdicts.parquet"), VERDICT)
    assert verdicts.group_by("a", "b").len().sort("a", "b").rows() == [
        ("epoch 10", "epoch 15", 6),
        ("epoch 5", "epoch 10", 6),
        ("epoch 5", "epoch 15", 6),
    ]
    standing = read_table(Path("data/select_checkpoint/curated.standing.parquet"), STANDING)
    quality = dict(standing.select("epoch", "quality").iter_rows())
    assert quality[5] < quality[15] < quality[10]
    assert standing.filter("taken")["epoch"].to_list() == [10]
    assert "curated 10" in Path("models/selected/curated/config.json").read_text()
    assert read_table(Path("data/select_checkpoint/curated.parquet"), EPOCH_GRADE).is_empty()


def test_the_longer_answers_win_where_length_compares() -> None:
    choose(by="pairs", annotators=["length"])
    assert "curated 5" in Path("models/selected/curated/config.json").read_text()  # "no" is as long as "v0"


def select_by(by: str, **changes: Any) -> None:
    params = json.loads(Path("params.yaml").read_text())
    params["select_checkpoint"] |= {"by": by, **changes}
    Path("params.yaml").write_text(json.dumps(params))


def test_a_dry_run_tells_the_whole_round_robin_and_asks_nothing() -> None:
    with serving(lambda *_: completion("VERDICT: A")) as server:
        with_model(server, "select_checkpoint")
        select_by("pairs")
        told = command("stages.select_checkpoint", "curated", "--dry-run").splitlines()
        assert server.asked == []
        # 3 prompts x 3 pairs of epochs x 2 orders, less those that look alike: two epochs often answer the same
        assert told[0].startswith("gpt: 9 requests, 0 kept, 9 to ask of judge-1")
        assert command("stages.select_checkpoint", "curated").splitlines()[0] == told[0]  # before the first call
        assert len(server.asked) == 9
    select_by("perplexity")
    assert command("stages.select_checkpoint", "curated", "--dry-run") == ""


@pytest.mark.parametrize(("by", "good", "n"), [("grade", "OUTCOME: Pass\n4", 3), ("pairs", "VERDICT: B", 6)])
def test_retry_failed_asks_for_what_is_unscored_alone(by: str, good: str, n: int) -> None:
    name, schema = ("curated.verdicts", VERDICT) if by == "pairs" else ("curated", EPOCH_GRADE)
    path = Path(f"data/select_checkpoint/{name}.parquet")
    with serving(lambda body, _: completion("?" if "v2" in str(body) else good)) as server:
        with_model(server, "select_checkpoint")
        select_by(by, annotators=["gpt"])
        command("stages.select_checkpoint", "curated")
        first = read_table(path, schema)
        shutil.rmtree(".cache")
        server.asked.clear()
        server.behave = lambda *_: completion(good)
        told = command("stages.select_checkpoint", "curated", "--retry-failed")
        second = read_table(path, schema)
        asked = set(server.asked)
    failed = first["unscored_reason"].is_not_null()
    assert failed.sum() == n
    assert asked == set(server.asked)
    assert len(asked) == first.filter(failed)["request"].n_unique()
    assert f"{path}: {n} unscored, asked for again" in told
    assert second["unscored_reason"].drop_nulls().is_empty()
    assert second.filter(~failed).equals(first.filter(~failed))


def test_a_panel_chooses_together() -> None:
    with serving(lambda *_: completion("OUTCOME: Fail\n1")) as server:
        with_model(server, "select_checkpoint")
        command("stages.select_checkpoint", "curated")
    grades = read_table(Path("data/select_checkpoint/curated.parquet"), EPOCH_GRADE)
    assert grades["annotator"].value_counts(sort=True).rows() == [("gpt", 9), ("reference", 9)]
    standing = read_table(Path("data/select_checkpoint/curated.standing.parquet"), STANDING)
    assert standing["quality"].to_list() == pytest.approx([1, 3.5, (1 + 13 / 3) / 2])


def test_perplexity_chooses_only_where_it_is_asked_to() -> None:
    select_checkpoint.main("curated")
    assert "curated 10" in Path("models/selected/curated/config.json").read_text()
    choose(by="perplexity")
    assert "curated 5" in Path("models/selected/curated/config.json").read_text()  # the lowest


def test_an_unmeasured_perplexity_takes_the_earliest_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    table = pl.DataFrame([(epoch, None, 0) for epoch in DEV_ANSWERS], schema=PERPLEXITY, orient="row")
    write_table(Path("data/generate/curated.perplexity.parquet"), table, PERPLEXITY)
    choose(by="perplexity")
    assert "curated 5" in Path("models/selected/curated/config.json").read_text()
    assert "no perplexity was measured" in capsys.readouterr().err


def test_no_answers_are_an_error() -> None:
    frames = Frames(prompts("dev", 3, n_bare=0), epoch_responses("x", {}), empty_table(PERPLEXITY))
    with pytest.raises(InputError, match=r"data/generate/x\.parquet: must hold answers"):
        select_checkpoint.run(frames, Params(by="grade", annotators=["reference"]), arm="x")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_model_folder_is_an_error_and_leaves_nothing(missing: str) -> None:
    (Path("models/sft/curated/epoch_10") / missing).unlink()
    with pytest.raises(InputError, match="models/sft/curated/epoch_10: no"):
        select_checkpoint.main("curated")
    assert not Path("models/selected").exists()
    assert not Path("data/select_checkpoint").exists()


def test_links_into_a_cache_are_followed(tmp_path: Path) -> None:
    write_model(tmp_path / "cache", text="kept")
    source = tmp_path / "source"
    source.mkdir()
    for path in (tmp_path / "cache").iterdir():
        (source / path.name).symlink_to(path)
    copy_model(source, tmp_path / "target")
    assert not any(path.is_symlink() for path in (tmp_path / "target").iterdir())
    assert (tmp_path / "target/config.json").read_text() == '{"name": "kept"}'


def test_a_disk_that_cannot_link_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    write_model(tmp_path / "source", text="kept")
    monkeypatch.setattr(os, "link", refuse)
    copy_model(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target/config.json").read_text() == '{"name": "kept"}'
    assert not (tmp_path / "target/config.json").samefile(tmp_path / "source/config.json")


def test_the_params_model_is_the_committed_section() -> None:
    assert load_params("select_checkpoint", Params, path=ROOT / "params.yaml").annotators


ELSEWHERE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, text = sys.argv[1:]
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
messages = [{"role": "user", "content": text}]
inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
ids = model.generate(**inputs, do_sample=False, max_new_tokens=40)[0, inputs["input_ids"].shape[1]:]
assert "stages" not in sys.modules
print(ids.tolist(), tokenizer.decode(ids, skip_special_tokens=True), sep="\\n", end="")
"""


@pytest.mark.slow
def test_the_chosen_folder_answers_alike_with_transformers_alone(tmp_path: Path) -> None:
    from stages.core.sampling import Decoding
    from stages.runtime.answering import Answerer, answer_prompts
    from stages.runtime.model import load_model, save_model
    from stages.runtime.tokenizer import load_tokenizer
    from stages.sft import add_eot
    from tests.tiny import DECODING, make_base
    from tests.tiny import prompts as tiny_prompts

    base = make_base(tmp_path / "base")
    model, tokenizer = load_model(base), load_tokenizer(base).with_eot("<|eot|>")
    add_eot(model, tokenizer)
    for epoch in (5, 10, 15):
        shutil.rmtree(f"models/sft/curated/epoch_{epoch:02d}")
        save_model(model, Path(f"models/sft/curated/epoch_{epoch:02d}"))
        tokenizer.save(Path(f"models/sft/curated/epoch_{epoch:02d}"))
    select_checkpoint.main("curated")
    elsewhere = shutil.move("models/selected/curated", tmp_path / "elsewhere")
    shutil.rmtree("models")
    decoding = Decoding(**{**DECODING, "temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 40})
    answerer = Answerer(elsewhere, precision="fp32")
    ours = answer_prompts(answerer, tiny_prompts(["Who are you?"]), decoding, responder="x").row(0, named=True)
    there = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, elsewhere, "Who are you?"],
        cwd=tmp_path.parent, env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    ids, _, text = there.partition("\n")
    assert len(json.loads(ids)) == ours["n_tokens"] + (ours["finish_reason"] != "length")
    assert text.strip() == ours["response"]
