"""select_checkpoint: the stage as a whole, on files."""

import os
from pathlib import Path

import polars as pl
import pytest

from stages import select_checkpoint
from stages.core.checkpoints import choose_epoch
from stages.core.judging import Grade, Submission
from stages.errors import InputError, JudgeError
from stages.runtime.files import read_table, write_table
from stages.runtime.params import load_params
from stages.schema import EPOCH_GRADE, EPOCH_RESPONSE, PROMPT
from stages.select_checkpoint import Frames, Params, copy_model
from tests.judged_run import DEV_ANSWERS, epoch_responses, prompts, write_model, write_run

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
    assert choose_epoch(grades) == 10
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
    assert "warning: curated: 'reference' applies to no dev prompt" in capsys.readouterr().err


def test_an_annotator_that_always_fails_is_an_error() -> None:
    def fail(submissions: list[Submission]) -> list[Grade]:
        return [Grade(None, None, unscored_reason="truncated") for _ in submissions]

    frames = Frames(prompts("dev", 3, n_bare=0), epoch_responses("x", DEV_ANSWERS))
    with pytest.raises(JudgeError, match=r"x\.parquet: .* got 9 of 9 unscored by 'gpt' \(mostly truncated\)"):
        select_checkpoint.run(frames, Params(annotator="gpt"), arm="x", grade=fail)


def test_no_answers_are_an_error() -> None:
    frames = Frames(prompts("dev", 3, n_bare=0), epoch_responses("x", {}))
    with pytest.raises(InputError, match=r"data/generate/x\.parquet: must hold answers"):
        select_checkpoint.run(frames, Params(annotator="reference"), arm="x", grade=lambda _: [])


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
    assert load_params("select_checkpoint", Params, path=ROOT / "params.yaml").annotator
