"""judge: the stage as a whole, on files."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from stages import judge
from stages.common.errors import InputError, JudgeError, ParamsError
from stages.common.files import read_table, write_table
from stages.common.params import load_params
from stages.core.judging import Choice, Comparison, Receipt
from stages.schema import GRADE, PROMPT, RESPONSE, VERDICT
from tests.judged_run import ANSWERS, PARAMS, command, prompts, responses, with_model, write_run
from tests.runtime.chat_server import completion, serving

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)


def verdicts(opponent: str) -> pl.DataFrame:
    judge.main(opponent)
    return read_table(Path(f"data/judge/{opponent}.parquet"), VERDICT)


def test_every_pair_is_judged_by_every_annotator_in_both_orders() -> None:
    table = verdicts("bulk")
    assert table.height == 5 * 2 * 2
    assert table.equals(table.sort("prompt_id", "sample", "annotator", "order"))
    by_reference = table.filter(annotator="reference", order="ab")
    # right, right; right, wrong; right, contains; wrong, right; no reference
    assert by_reference["preference"].to_list() == ["tie", "a", "a", "b", None]
    assert by_reference["unscored_reason"].to_list() == [None] * 4 + ["no_reference"]
    by_length = table.filter(annotator="length", order="ba")
    assert by_length["preference"].to_list() == ["tie", "b", "b", "tie", "b"]


def test_the_same_inputs_give_the_same_bytes() -> None:
    verdicts("bulk")
    first = Path("data/judge/bulk.parquet").read_bytes()
    table = responses("bulk", ANSWERS["bulk"]).reverse()
    write_table(Path("data/respond_opponent/bulk.parquet"), table, RESPONSE)
    verdicts("bulk")
    assert Path("data/judge/bulk.parquet").read_bytes() == first


def test_an_answer_missing_on_one_side_is_an_error_and_writes_nothing() -> None:
    write_table(Path("data/respond_opponent/base.parquet"), responses("base", ["a"] * 4), RESPONSE)
    with pytest.raises(InputError, match=r"data/respond_opponent/base.parquet: must answer the prompt 'test:p4'"):
        judge.main("base")
    assert not Path("data/judge").exists()


def test_an_unknown_arm_is_refused_though_its_answers_are_left_from_before(tmp_path: Path) -> None:
    write_table(Path("data/respond/gone.parquet"), responses("gone", ANSWERS["bulk"]), RESPONSE)
    (tmp_path / "params.yaml").write_text(json.dumps({**PARAMS, "judge": {**PARAMS["judge"], "arm": "gone"}}))
    with pytest.raises(
        ParamsError, match=r"^params\.yaml: judge\.arm: must be a key of arms, got 'gone'; name one of c"
    ):
        judge.main("base")
    assert not Path("data/judge/base.parquet").exists()


def test_an_unknown_annotator_is_an_error(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace('"length"]', '"oracle"]'))
    with pytest.raises(ParamsError, match="got 'oracle'"):
        judge.main("base")


@pytest.mark.parametrize("n_failed", [5, 6])
def test_a_table_of_which_more_than_half_failed_is_not_made(n_failed: int) -> None:
    def choose(comparisons: list[Comparison]) -> list[Choice]:
        n = len(comparisons)
        return [Choice(None, "unanswered", Receipt("503"))] * n_failed + [Choice("tie")] * (n - n_failed)

    def refer(comparisons: list[Comparison]) -> list[Choice]:
        return [Choice(None, "no_reference") for _ in comparisons]

    frames = judge.Frames(
        prompts("test", 5, n_bare=0), responses("curated", ANSWERS["curated"]), responses("bulk", ANSWERS["bulk"])
    )
    params, comparers = judge.Params(arm="curated", annotators=["gpt"]), {"gpt": choose, "reference": refer}
    if n_failed == 5:  # half of the ten presentations
        assert judge.run(frames, params, opponent="bulk", comparers=comparers).verdicts.height == 20
        return
    with pytest.raises(
        JudgeError, match=r"data/judge/bulk\.parquet: .*got 6 of 10 unscored by 'gpt' \(mostly unanswered\)"
    ):
        judge.run(frames, params, opponent="bulk", comparers=comparers)


def test_the_params_model_is_the_committed_section() -> None:
    section = load_params("judge", judge.Params, path=ROOT / "params.yaml")
    assert section.arm
    assert set(PARAMS["judge"]) == set(judge.Params.model_fields)


@pytest.mark.parametrize(
    ("stage", "key", "n"), [("judge", "bulk", 9), ("grade", "bulk", 5), ("select_checkpoint", "bulk", 6)]
)
def test_a_dry_run_says_what_it_would_cost_and_asks_and_writes_nothing(stage: str, key: str, n: int) -> None:
    with serving(lambda *_: completion("VERDICT: A")) as server:
        with_model(server, stage)
        told = command(f"stages.{stage}", key, "--dry-run").splitlines()
        assert server.asked == []
    assert re.fullmatch(
        rf"gpt: {n} requests, 0 kept, {n} to ask of judge-1, about [\d,]+ tokens to read, at most {50 * n} to write: "
        rf"\$0\.\d+ to \$0\.\d+; \$0\.00 of \$1\.00 spent",
        told[0],
    )
    assert told[1:] == ["reference: costs nothing"]
    assert not Path(f"data/{stage}").exists()
    assert not Path("models/selected").exists()


@pytest.mark.parametrize("stage", ["judge", "grade"])
def test_retry_failed_asks_for_what_is_unscored_alone_on_a_machine_without_the_cache(stage: str) -> None:
    good = "VERDICT: B" if stage == "judge" else "OUTCOME: Pass\n4"
    schema = VERDICT if stage == "judge" else GRADE
    with serving(lambda body, _: completion("?" if "story" in str(body) else good)) as server:
        with_model(server, stage)
        command(f"stages.{stage}", "bulk")
        path = Path(f"data/{stage}/bulk.parquet")
        first = read_table(path, schema).filter(annotator="gpt")
        shutil.rmtree(".cache")
        server.asked.clear()
        server.behave = lambda *_: completion(good)
        told = command(f"stages.{stage}", "bulk", "--retry-failed")
        second = read_table(path, schema).filter(annotator="gpt")
        n_failed = first["unscored_reason"].drop_nulls().len()
        assert len(server.asked) == n_failed > 0
    assert f"{path}: {n_failed} unscored, asked for again" in told
    assert second["unscored_reason"].drop_nulls().is_empty()
    scored = first["unscored_reason"].is_null()
    assert second.filter(scored).equals(first.filter(scored))


def test_retry_failed_needs_a_table() -> None:
    with pytest.raises(InputError, match=r"data/judge/bulk\.parquet: no such file; `dvc repro` makes it"):
        judge.main("bulk", retry_failed=True)


def test_bytes_do_not_depend_on_what_the_cache_held() -> None:
    with serving(lambda *_: completion("VERDICT: B")) as server:
        with_model(server, "judge")
        path = Path("data/judge/bulk.parquet")
        command("stages.judge", "bulk")
        first = path.read_bytes()
        told = command("stages.judge", "bulk")
        assert "gpt: 9 requests, 9 kept, nothing to ask" in told
        assert path.read_bytes() == first
        assert len(server.asked) == 9  # equal answers are one question in both orders
    assert read_table(path, VERDICT).filter(annotator="gpt")["cost"].to_list() == [(7 + 3 * 2) / 1e6] * 10


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_320_prompts_are_judged_in_two_seconds_without_torch(tmp_path: Path) -> None:
    write_table(tmp_path / "data/prompts/test.parquet", prompts("test", 320, n_bare=20), PROMPT)
    for folder, name in (("respond", "curated"), ("respond_opponent", "bulk")):
        table = responses(name, [f"{name} v{i}" for i in range(320)])
        write_table(tmp_path / f"data/{folder}/{name}.parquet", table, RESPONSE)
    code = (
        "import runpy, sys; sys.argv[1:] = ['bulk']\n"
        "try: runpy.run_module('stages.judge', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'openai', 'scipy'} & set(sys.modules)"
    )
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert cpu_seconds() - before < 2  # 0.6 s on an idle machine
    assert read_table(Path("data/judge/bulk.parquet"), VERDICT).height == 320 * 4
