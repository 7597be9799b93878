"""Workspaces of the tests that run the pipeline as a whole."""

import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

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


# In two processes: all that need the finished run in one, as it is made once a process, every other file whole in the
# other; what takes longest first.
RUN = ("test_pipeline.py", "test_experiments.py", "test_remote.py")
LONG = ("test_sft.py", "test_folders.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first."""
    items.sort(key=lambda item: (item.path.name not in RUN, item.path.name not in LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share tests out by file. By groups would be simpler: xdist 3.8 does not see them under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "run" if Path(path).name in RUN else path

    return Files(config, log)


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
