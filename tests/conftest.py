"""Workspaces of the tests that run the pipeline as a whole."""

import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import pytest

from tests.workspace import Workspace

# The miniature, smaller still: everything runs, nothing is learned.
SMALL = {
    "miniature.n_people": 150,
    "prompts.dev": {"authored": 6},
    "prompts.test": {"authored": 12, "ask_reddit": 4},
    "quality.n_unfiltered": 200,
    "sample.n_heldout": 6,
    "arms.curated.sample.quotas": {
        "stack_exchange_stem": 6, "stack_exchange_other": 6, "wikihow": 5, "writing_prompts": 4,
        "natural_instructions": 2, "authored": 6,
    },
    "arms.curated.sft": {"epochs": 2, "candidate_epochs": [1, 2]},
    "arms.bulk.sample.quotas": {"all": 60},
    "arms.bulk.sft": {"epochs": 1, "candidate_epochs": [1]},
    "base.pretrain.hidden_size": 32,
    "base.pretrain.n_layers": 2,
    "base.pretrain.n_steps": 20,
    "generate.max_new_tokens": 8,
    "respond.max_new_tokens": 8,
    "score.n_bootstrap": 200,
}  # fmt: skip


def pytest_itemcollected(item: pytest.Item) -> None:
    """Two processes run the tests: all that need the finished run in one, other files whole in the other.

    Said as each test is found: xdist reads the groups before any other hook can change the list.
    """
    item.add_marker(pytest.mark.xdist_group("run" if needs_run(item) else item.path.name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that both processes end together."""
    items.sort(key=lambda item: (not needs_run(item), item.path.name not in ("test_sft.py", "test_folders.py")))


def needs_run(item: pytest.Item) -> bool:
    """Whether a test needs the finished run, or what leads to it."""
    return "small" in getattr(item, "fixturenames", ())


@pytest.fixture
def parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC parses params.yaml again for each stage, which is most of the time of a status; remember what it parsed."""
    from dvc.utils import strictyaml
    from dvc.utils.serialize import _yaml

    parse = lru_cache(_yaml.parse_yaml)
    for reader in (strictyaml, _yaml):
        monkeypatch.setattr(reader, "parse_yaml", lambda text, path, typ="safe": deepcopy(parse(text, path, typ)))


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    """The project as a clone has it, nothing run."""
    return Workspace.fresh(tmp_path / "fresh")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The project with small parameters, committed, nothing run; copy it before you change it."""
    workspace = Workspace.fresh(tmp_path_factory.mktemp("small") / "project")
    workspace.set(SMALL)
    workspace.commit("small")
    return workspace


@pytest.fixture(scope="session")
def finished(small: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A whole small run, committed; copy it before you change it."""
    workspace = small.copy(tmp_path_factory.mktemp("finished") / "project")
    workspace.repro()
    workspace.commit("run")
    return workspace


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the finished run that a test may change."""
    yield finished.copy(tmp_path / "project")
    shutil.rmtree(tmp_path / "project")
