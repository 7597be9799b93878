"""compare: two revisions of a real repository under git and DVC."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import permutation_test

from stages import compare, grade, judge
from stages.common.errors import InputError
from stages.common.files import read_table, write_table
from stages.core.intervals import Intervals
from stages.core.significance import MAX_EXACT, detectable, sign_flip
from stages.core.significance import compare as compare_values
from stages.schema import PROMPT, RESPONSE
from tests.judged_run import PARAMS, responses, write_run
from tests.workspace import Workspace

INTERVALS = Intervals(seed=0, n_bootstrap=300, confidence=0.95)
DATA = [f"data/{name}" for name in ("prompts", "respond", "respond_opponent", "judge", "grade")]


# ------------------------------------------------------------------------------------------------------- significance


def test_few_differences_are_tested_over_all_sign_patterns() -> None:
    assert sign_flip([1, 1, 1], seed=0) == 0.25
    assert sign_flip([1, 1, -1, 0], seed=0) == 1.0
    assert sign_flip([0, 0], seed=0) == sign_flip([], seed=0) == 1.0


@pytest.mark.parametrize("n", [MAX_EXACT - 4, MAX_EXACT, MAX_EXACT + 1, 60])
def test_the_sign_flip_test_is_scipys(n: int) -> None:
    apart = np.random.default_rng(n).normal(0.3, 1, size=n)
    theirs = permutation_test((apart,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1)
    assert sign_flip(apart, seed=0) == pytest.approx(theirs.pvalue, abs=1e-9 if n <= MAX_EXACT else 0.01)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(7)
    below = np.mean([sign_flip(rng.choice([-1, 0, 1], size=30), seed=i) <= 0.05 for i in range(300)])
    assert below < 0.08


def test_samples_are_averaged_and_prompts_of_one_run_alone_left_out() -> None:
    first = pl.DataFrame({"prompt_id": ["p", "p", "q", "r"], "value": [0.0, 1.0, 0.0, 1.0]})
    second = pl.DataFrame({"prompt_id": ["q", "p", "s"], "value": [1.0, 1.0, 0.0]})
    found = compare_values(first, second, scale=(0, 1), intervals=INTERVALS, power=0.8)
    assert found is not None
    assert (found.first, found.second, found.difference.value, found.difference.n) == (0.25, 1.0, 0.75, 2)
    assert compare_values(first, second.filter(prompt_id="s"), scale=(0, 1), intervals=INTERVALS, power=0.8) is None


def test_the_detectable_difference_is_found_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    least = detectable(rng.normal(0, 2, size=200), confidence=0.95, power=0.8)
    assert least == pytest.approx((1.96 + 0.8416) * 2 / 200**0.5, rel=0.1)
    found = [sign_flip(rng.normal(least, 2, size=200), seed=i) <= 0.05 for i in range(120)]
    assert 0.65 < np.mean(found) < 0.92
    assert detectable([1.0], confidence=0.95, power=0.8) is detectable([1.0, 1.0], confidence=0.95, power=0.8) is None


def test_a_difference_of_grades_is_in_grades() -> None:
    first, second = ({"prompt_id": [f"p{i}" for i in range(40)], "value": [v] * 40} for v in (2.0, 5.0))
    found = compare_values(pl.DataFrame(first), pl.DataFrame(second), scale=(1, 6), intervals=INTERVALS, power=0.8)
    assert found is not None
    assert found.difference.value == 3
    assert found.difference.low is not None
    assert found.difference.low < 3 < found.difference.high  # type: ignore[operator]
    assert found.p_value < 1e-4


# ---------------------------------------------------------------------------------------------------------- revisions


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two committed runs: `first`, and HEAD, in which the curated arm's answers are all wrong."""
    workspace = Workspace(tmp_path_factory.mktemp("committed") / "project")
    workspace.root.mkdir()
    write_run(workspace.root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace.root)
        judged()
        workspace.run("git", "init", "--quiet")
        workspace.run("dvc", "init", "--quiet")
        workspace.run("dvc", "add", "--quiet", *DATA)
        workspace.commit("first")
        workspace.run("git", "tag", "first")
        write_table(Path("data/respond/curated.parquet"), responses("curated", ["no"] * 5), RESPONSE)
        judged()
        workspace.run("dvc", "add", "--quiet", *DATA)
        workspace.commit("second")
    return workspace


@pytest.fixture
def repository(committed: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of them, as the working directory."""
    workspace = committed.copy(tmp_path / "project")
    monkeypatch.chdir(workspace.root)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc-site"))
    return workspace


def judged() -> None:
    for opponent in ("base", "bulk"):
        judge.main(opponent)
    for arm in ("curated", "bulk"):
        grade.main(arm)


def told(capsys: pytest.CaptureFixture[str], *revisions: str) -> tuple[str, dict[tuple[str, ...], list[str]]]:
    compare.main(*revisions)
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    return printed, {tuple(row[: -7 if row[0] == "measure" else -8]): row[-8:] for row in rows if len(row) > 9}


def test_two_revisions_are_compared_on_shared_prompts(
    repository: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, rows = told(capsys, "first", "HEAD")
    assert printed.startswith("5 test prompts are the same, of 5 in first and 5 in HEAD\n")
    exact = rows["exact", "curated", "-"]  # three of four right, then none: 2 of 8 sign patterns are as far off
    assert exact[:3] == ["0.750", "0.000", "-0.750"]
    assert exact[-2:] == ["0.2500", "4"]
    assert rows["exact", "bulk", "-"][:3] == ["0.500", "0.500", "+0.000"]
    assert rows["exact", "bulk", "-"][-2:] == ["1.0000", "4"]
    assert rows["helpfulness", "curated", "reference"][:3] == ["4.750", "1.000", "-3.750"]
    assert rows["preferred", "curated", "to", "bulk", "reference"][:2] == ["0.625", "0.125"]
    assert ("preferred", "curated", "to", "base", "length") in rows
    assert repository.run("git", "status", "--porcelain").stdout == ""  # nothing was checked out


def test_the_workspace_and_a_changed_prompt(repository: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("data/prompts/test.parquet")
    prompts = read_table(path, PROMPT).to_dicts()
    prompts[0]["messages"][0]["content"] = "Another question?"
    path.unlink()  # DVC's link
    write_table(path, pl.DataFrame(prompts, schema=PROMPT), PROMPT)
    printed, rows = told(capsys, "first", "workspace")
    assert printed.startswith("4 test prompts are the same, of 5 in first and 5 in workspace\n")
    assert rows["exact", "curated", "-"][-1] == "3"


def test_what_one_run_alone_has_is_said(repository: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("params.yaml")
    path.write_text(json.dumps({**PARAMS, "opponents": {"base": {}}}))
    printed, rows = told(capsys, "HEAD", "workspace")
    assert "only one run has preferred of curated to bulk by reference" in printed
    assert ("preferred", "curated", "to", "base", "reference") in rows


@pytest.mark.slow
def test_an_experiment_is_compared_by_its_name(repository: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    Path("dvc.yaml").write_text(
        "stages:\n  note:\n    cmd: echo done > note.txt\n    params: [score.seed]\n    outs: [note.txt]\n"
    )
    repository.commit("a stage")
    repository.run("dvc", "exp", "run", "--quiet", "--name", "my-try", "--set-param", "score.seed=3")
    printed, _ = told(capsys, "first", "my-try")
    assert "of 5 in first and 5 in my-try" in printed


@pytest.mark.parametrize(
    ("revision", "error"),
    [
        ("nowhere", "nowhere: no revision or experiment of that name"),
        ("HEAD~5", "HEAD~5: no revision or experiment of that name"),
    ],
)
def test_an_unknown_revision_is_one_sentence(repository: Workspace, revision: str, error: str) -> None:
    with pytest.raises(InputError, match=error):
        compare.main(revision, "HEAD")


@pytest.mark.parametrize("with_remote", [False, True])
def test_content_that_is_nowhere_is_one_sentence(repository: Workspace, with_remote: bool) -> None:
    if with_remote:
        (repository.root / "../remote").mkdir()
        repository.run("dvc", "remote", "add", "--default", "team", "../remote")
    shutil.rmtree(repository.root / ".dvc/cache")
    with pytest.raises(
        InputError, match=r"prompts/test.parquet: its content at first is neither in DVC's cache nor on"
    ):
        compare.main("first", "HEAD")


def test_a_revision_without_a_run_is_one_sentence(repository: Workspace) -> None:
    repository.run("git", "rm", "--quiet", "-r", "--cached", ".")
    repository.run("git", "add", "params.yaml", ".dvc")
    repository.run("git", "commit", "--quiet", "--message", "bare")
    with pytest.raises(InputError, match=r"data/prompts/test\.parquet: HEAD has no such file"):
        compare.main("first", "HEAD")


def test_outside_of_a_repository_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not in a DVC repository"):
        compare.main("HEAD", "workspace")
