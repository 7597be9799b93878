"""What a user expects of `dvc exp` and the `diff` commands."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime.chat_server import completion, serving

if TYPE_CHECKING:
    from tests.workspace import Workspace

pytestmark = pytest.mark.slow


def shown(workspace: Workspace) -> list[dict[str, Any]]:
    """The experiments on HEAD, as `dvc exp show` has them."""
    baselines = json.loads(workspace.run("dvc", "exp", "show", "--json").stdout)
    return [rev for baseline in baselines for experiment in baseline["experiments"] or [] for rev in experiment["revs"]]


def confidence(experiment: dict[str, Any]) -> float:
    return experiment["data"]["params"]["params.yaml"]["data"]["score"]["confidence"]  # type: ignore[no-any-return]


def test_a_changed_parameter_is_an_experiment_that_can_be_compared(workspace: Workspace) -> None:
    workspace.run("dvc", "exp", "run", "--set-param", "score.confidence=0.9", "--name", "ninety")
    assert [(rev["name"], confidence(rev)) for rev in shown(workspace)] == [("ninety", 0.9)]
    params = json.loads(workspace.run("dvc", "params", "diff", "--json").stdout)
    assert {name: list(changed) for name, changed in params.items()} == {"params.yaml": ["score.confidence"]}
    metrics = json.loads(workspace.run("dvc", "metrics", "diff", "--json").stdout)
    assert list(metrics) == ["metrics/score.json"]
    assert {name.rpartition(".")[2] for name in metrics["metrics/score.json"]} <= {"low", "high", "minimum_detectable"}


def test_queued_experiments_run_in_workspaces_of_their_own(workspace: Workspace) -> None:
    workspace.run("dvc", "exp", "run", "--queue", "--set-param", "score.confidence=0.8,0.9")
    before = workspace.run("git", "status", "--porcelain").stdout
    workspace.run("dvc", "exp", "run", "--run-all", "--jobs", "1")
    assert sorted(map(confidence, shown(workspace))) == [0.8, 0.9]
    assert workspace.run("git", "status", "--porcelain").stdout == before == ""


def test_an_experiment_in_a_temporary_workspace_leaves_this_one_alone(workspace: Workspace) -> None:
    done = workspace.run("dvc", "exp", "run", "--temp", "--set-param", "report.n_examples=1", "--name", "short")
    assert "Running stage 'score'" not in done.stdout
    assert "Running stage 'report'" in done.stdout
    assert [rev["name"] for rev in shown(workspace)] == ["short"]
    assert workspace.run("git", "status", "--porcelain").stdout == ""


def test_a_relative_origin_is_that_of_the_project_in_a_temporary_workspace_too(workspace: Workspace) -> None:
    shutil.copytree(workspace.root / "data/pull/wikihow", workspace.root / "dumps/wikihow")
    done = workspace.run(
        "dvc", "exp", "run", "--temp", "--set-param", "sources.wikihow.origin=dumps/wikihow", "pull@wikihow"
    )
    assert "Running stage 'pull@wikihow'" in done.stdout
    assert len(shown(workspace)) == 1


def test_temporary_experiments_pay_for_nothing_that_is_paid_for(workspace: Workspace) -> None:
    """A changed number of attempts judges anew; the replies are those of the main workspace."""
    with serving(lambda *_: completion("VERDICT: A")) as server:
        model = {
            "kind": "openai", "base_url": server.base_url, "model": "judge-1", "api_key_env": None, "concurrency": 8,
            "timeout_s": 9.0, "max_attempts": 2, "temperature": 0.0, "max_reply_tokens": 50, "structured": False,
            "price": {"input": 0.0, "output": 0.0}, "max_cost": 1.0, "batch": None,
        }  # fmt: skip
        workspace.set({"annotators": {"reference": {"kind": "reference"}, "gpt": model}, "judge.annotators": ["gpt"]})
        workspace.repro("judge")
        workspace.commit("a model as judge")
        n_asked = len(server.asked)
        change = "annotators.gpt.max_attempts"
        done = workspace.run("dvc", "exp", "run", "--temp", "--set-param", f"{change}=3", "--name", "temp", "judge")
        assert "Running stage 'judge@base'" in done.stdout
        workspace.run("dvc", "exp", "run", "--queue", "--set-param", f"{change}=4,5", "judge")
        workspace.run("dvc", "exp", "run", "--run-all", "--jobs", "2")
        assert len(server.asked) == n_asked > 0
    assert {rev["name"] for rev in shown(workspace)} >= {"temp"}
    assert len(shown(workspace)) == 3


def test_a_learning_rate_as_dvc_writes_it_is_a_number(workspace: Workspace) -> None:
    workspace.run("dvc", "exp", "run", "--set-param", "sft.lr=1e-5", "render")
    assert "Running" not in workspace.run("dvc", "repro", "render").stdout
    workspace.run("python", "-c", "from stages.sft import *; assert load_params('sft', Params).lr == 1e-5")


def test_plots_are_declared_and_drawn_without_a_network(workspace: Workspace) -> None:
    workspace.run("dvc", "exp", "run", "--set-param", "score.confidence=0.9")
    workspace.run("dvc", "plots", "show", "--out", "plots")
    page = (workspace.root / "plots/index.html").read_text()
    assert "pairwise" in page
    assert "loss" in page
    assert "checkpoints" in page
    assert 'src="http' not in page
    workspace.run("dvc", "plots", "diff", "HEAD", "--out", "diff")
    assert (workspace.root / "diff/index.html").is_file()
