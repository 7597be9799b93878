"""The pipeline as a whole, on a small run of the miniature: what runs, what does not run again, what a fault leaves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stages.core.yaml_edit import rewrite
from tests.workspace import ROOT, Workspace, read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

# Outs that hold a clock, a duration or the name of a machine; no stage reads them.
WITH_A_CLOCK = {"metrics/sft/bulk/run.json", "metrics/sft/curated/run.json"}
STAGES = list(read_yaml(ROOT / "dvc.yaml")["stages"])
DATA_STAGES = ("pull", "extract", "prompts", "quality", "dedup", "sample")


def test_it_runs_to_the_report(finished: Workspace) -> None:
    stages = read_yaml(finished.root / "dvc.lock")["stages"]
    assert len(stages) > 30
    assert (finished.root / "reports/report.html").stat().st_size > 10_000
    assert json.loads((finished.root / "metrics/score.json").read_text())
    assert finished.run("git", "status", "--porcelain").stdout == ""


def test_it_changes_nothing_that_git_tracks_but_lock_and_metrics(finished: Workspace) -> None:
    changed = finished.run("git", "diff", "--name-only", "HEAD~1").stdout.split()
    assert "dvc.lock" in changed
    assert [
        path for path in changed if not path.startswith("metrics/") and not re.search(r"(dvc\.lock|\.gitignore)$", path)
    ] == []


def test_nothing_runs_twice(workspace: Workspace) -> None:
    done = workspace.run("dvc", "repro")
    assert "Running stage" not in done.stdout
    assert done.stdout.endswith("Data and pipelines are up to date.\n")


def test_two_runs_from_scratch_give_the_same_bytes(finished: Workspace, small: Workspace, tmp_path: Path) -> None:
    again = small.copy(tmp_path / "again")
    assert len(again.repro()) > 30
    ours, theirs = again.outs(), finished.outs()
    assert ours.keys() == theirs.keys()
    assert {path for path in ours if ours[path] != theirs[path]} == WITH_A_CLOCK


def test_data_is_the_same_with_one_thread_and_with_two(finished: Workspace, small: Workspace, tmp_path: Path) -> None:
    one = small.copy(tmp_path / "one")
    one.repro("sample", "prompts", POLARS_MAX_THREADS="1")  # the finished run had two
    expected = finished.outs()
    found = one.outs()
    assert {path.split("/")[1].partition(".")[0] for path in found} == set(DATA_STAGES)
    assert found == {path: expected[path] for path in found}


PARAMS = read_yaml(ROOT / "profiles/miniature.yaml")
KEYS = {
    **{name: list(PARAMS["sources"]) for name in ("pull", "extract")},
    **{name: list(PARAMS["opponents"]) for name in ("respond_opponent", "judge")},
    **{name: list(PARAMS["arms"]) for name in ("sample", "grade")},
    # of the stages that hold a model one arm each: they take longer, and the other arm's code is the same
    **{name: ["curated"] for name in ("render", "sft", "generate", "select_checkpoint", "respond")},
}


@pytest.mark.parametrize("stage", [f"{name}@{key}" if key else name for name in STAGES for key in KEYS.get(name, [""])])
def test_a_stage_runs_on_its_deps_and_params_alone(stage: str, finished: Workspace, tmp_path: Path) -> None:
    """A folder with nothing but what dvc.yaml declares for a stage, and its sections of params.yaml, is enough."""
    entry = read_yaml(finished.root / "dvc.lock")["stages"][stage]
    for dep in (dep["path"] for dep in entry["deps"]):
        place = tmp_path / dep
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (finished.root / dep).is_dir() else shutil.copyfile
        copy(finished.root / dep, place)
    params = read_yaml(finished.root / "params.yaml")
    sections = {name.partition(".")[0] for name in entry.get("params", {}).get("params.yaml", {})}
    (tmp_path / "params.yaml").write_text(json.dumps({name: params[name] for name in sections}))
    Workspace(tmp_path).run(*entry["cmd"].split())
    for out in (out["path"] for out in entry["outs"]):
        assert (tmp_path / out).exists() if out in WITH_A_CLOCK else same(tmp_path / out, finished.root / out), out


def test_no_stage_reads_what_holds_a_clock(finished: Workspace) -> None:
    stages = read_yaml(finished.root / "dvc.lock")["stages"].values()
    deps = [Path(dep["path"]) for stage in stages for dep in stage["deps"]]
    assert [dep for dep in deps for out in WITH_A_CLOCK if dep == Path(out) or dep in Path(out).parents] == []


def same(a: Path, b: Path) -> bool:
    """Whether two files, or all files of two folders, hold the same bytes."""
    if a.is_file():
        return a.read_bytes() == b.read_bytes()
    files = [path.relative_to(b) for path in sorted(b.rglob("*")) if path.is_file()]
    return bool(files) and all((a / path).read_bytes() == (b / path).read_bytes() for path in files)


def test_a_score_parameter_reruns_score_and_report_alone(workspace: Workspace) -> None:
    workspace.set({"score.confidence": 0.9})
    assert workspace.repro() == ["score", "report"]


def test_a_judged_arm_reruns_no_model(workspace: Workspace) -> None:
    workspace.set({"judge.annotators": ["reference"]})
    assert {stage.partition("@")[0] for stage in workspace.repro()} <= {"judge", "score", "report"}


def test_a_quality_threshold_reruns_no_pretraining(workspace: Workspace) -> None:
    workspace.set({"quality.rules.min_score.stack_exchange_stem": 20})
    ran = {stage.partition("@")[0] for stage in workspace.repro()}
    assert {"quality", "dedup", "sample"} <= ran
    assert not {"pull", "extract", "base"} & ran


def test_going_back_restores_from_the_run_cache(workspace: Workspace) -> None:
    expected = workspace.outs()
    workspace.set({"prompts.seed": 1})
    assert workspace.repro("prompts") == ["prompts"]
    workspace.set({"prompts.seed": 0})
    assert workspace.repro("prompts") == []
    assert workspace.outs() == expected


# ---------------------------------------------------------------------------------------------------------- bad input


def origin(source: str, folder: str) -> Callable[[Workspace], None]:
    return lambda workspace: workspace.set({f"sources.{source}.origin": folder})


def truncated_archive(workspace: Workspace) -> None:
    pulled = next((workspace.root / "data/pull/stack_exchange").rglob("*.7z"))
    (workspace.root / "cut").mkdir()
    (workspace.root / "cut" / pulled.name).write_bytes(pulled.read_bytes()[:-2000])
    workspace.set({"sources.stack_exchange.origin": "cut"})


def empty_folder(workspace: Workspace) -> None:
    (workspace.root / "empty").mkdir()
    workspace.set({"sources.wikihow.origin": "empty"})


def wrong_format(workspace: Workspace) -> None:
    (workspace.root / "wrong").mkdir()
    (workspace.root / "wrong/articles.csv").write_bytes(b"\x00\xff\xfe not a table of articles \x00")
    workspace.set({"sources.wikihow.origin": "wrong"})


def wrong_columns(workspace: Workspace) -> None:
    (workspace.root / "wrong").mkdir()
    (workspace.root / "wrong/articles.csv").write_text("colour,size\nred,1\n")
    workspace.set({"sources.wikihow.origin": "wrong"})


def no_safetensors(workspace: Workspace) -> None:
    shutil.copytree(workspace.root / "models/base", workspace.root / "model")
    for path in (workspace.root / "model").glob("*.safetensors"):
        path.unlink()
    workspace.set({"base.model": "./model"})


def edit(**sections: dict[str, object]) -> Callable[[Workspace], None]:
    """Add keys to sections of params.yaml."""

    def change(workspace: Workspace) -> None:
        path = workspace.root / "params.yaml"
        params = read_yaml(path)
        for section, values in sections.items():
            params[section] = {**params[section], **values}
        path.write_text(rewrite(path.read_text(), params))

    return change


def values(**changes: object) -> Callable[[Workspace], None]:
    return lambda workspace: workspace.set({name.replace("__", "."): value for name, value in changes.items()})


BAD_INPUT = {
    "missing origin": (origin("reddit", "nowhere"), "pull@reddit", r"nowhere: .*; correct"),
    "empty origin": (empty_folder, "pull@wikihow", r"empty: .*got no such file; correct"),
    "truncated archive": (truncated_archive, "extract@stack_exchange", r"\.7z: .*; "),
    "wrong format": (wrong_format, "extract@wikihow", r"articles\.csv.* must be UTF-8.*; "),
    "wrong columns": (wrong_columns, "extract@wikihow", r"articles\.csv.*colour.*; "),
    "origin of another format": (origin("reddit", "data/pull/authored"), "pull@reddit", r"format reddit needs"),
    "pool too small": (
        values(arms__curated__sample__quotas={"wikihow": 100_000}), "sample@curated", r"wikihow.*100,000.*; ",
    ),
    "unknown group": (values(arms__curated__sample__quotas={"nosuch": 1}), "sample@curated", r"nosuch.*; "),
    "too few prompts": (values(prompts__dev={"authored": 100_000}), "prompts", r"authored.*100,?000.*; "),
    "model without safetensors": (no_safetensors, "base", r"model: .*safetensors.*; "),
    "hub id without revision": (values(base__model="org/name"), "base", r"base\.revision: must be a commit"),
    "unknown arm": (values(judge__arm="nosuch"), "judge@base", r"data/respond/nosuch\.parquet"),
    "unknown annotator": (values(judge__annotators=["nosuch"]), "judge@base", r"nosuch.*; "),
    "opponent without a file": (
        edit(opponents={"gone": {"kind": "responses", "path": "gone.json"}}), "respond_opponent@gone", r"gone\.json",
    ),
    "unknown key": (edit(score={"nosuch": 1}), "score", r"params\.yaml: score\.nosuch: unknown key, got 1; remove it"),
    "wrong type": (values(sft__lr="high"), "sft@curated", r"params\.yaml: sft\.lr: must be .*got 'high'; "),
    "out of range": (values(score__confidence=1.5), "score", r"score\.confidence: must be less than 1, got 1\.5; "),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence_and_leaves_no_output(case: str, workspace: Workspace) -> None:
    spoil, target, sentence = BAD_INPUT[case]
    spoil(workspace)
    done = workspace.run("dvc", "repro", target, ok=False)
    said = [line for line in done.stderr.splitlines() if line.lower().startswith("error: ")]
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert len([line for line in said if re.search(sentence, line)]) == 1, done.stderr
    assert [out for out in outs_of(workspace, target) if (workspace.root / out).exists()] == []


def outs_of(workspace: Workspace, target: str) -> list[str]:
    """Where a stage writes, by its name and the rule of one word."""
    word, _, key = target.partition("@")
    found = read_yaml(workspace.root / "dvc.yaml")["stages"][word]
    outs = found.get("do", found).get("outs", [])
    names = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    return [name.replace("${key}", key) for name in names]


@pytest.mark.parametrize("target", ["sft@nosuch", "respond_opponent@nosuch"])
def test_an_arm_or_opponent_that_is_not_in_the_parameters(target: str, workspace: Workspace) -> None:
    word, _, key = target.partition("@")
    by_dvc = workspace.run("dvc", "repro", target, ok=False)
    assert (by_dvc.returncode, "Traceback" in by_dvc.stderr) == (255, False)
    by_hand = workspace.run("python", "-m", f"stages.{word}", key, ok=False)
    assert (by_hand.returncode, by_hand.stderr.count("\n")) == (1, 1)
    assert re.match(r"error: .*nosuch", by_hand.stderr)
