"""What a training run goes on from after a crash, under .cache/sft/<arm>/<key>/: outside every DVC out.

    epoch_NN/              candidate epochs that are whole; they become outs when all are
    state-<step>/          the newest training state: weights, optimizer, the records of the steps so far

The key is a hash of everything that the result follows from, so another parameter, base, training set or version of the
code starts anew, and what an earlier key left is removed. The order of the examples and the residual dropout follow
from seed and step, so the state holds no random numbers.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from stages.common.errors import ParamsError
from stages.runtime.parallel import in_order
from stages.runtime.shards import file_digest

EVERY_S = "LIMA_STATE_EVERY_S"  # environment: seconds between two states, in place of the rule below; inf: keep none
LEAST_S = 10.0
SHARE = 20  # a state may cost a twentieth of the time between two of them


def key_of(files: Iterable[Path], *values: object) -> str:
    """Hash the contents of files, and plain values.

    Args:
        files: in any order; what counts is their name and contents.
        values: what else the result follows from, as JSON can write it.
    """
    ordered = sorted(files)
    sums = in_order(file_digest, ordered)
    facts = [[path.name, digest] for path, digest in zip(ordered, sums, strict=True)]
    return hashlib.sha256(json.dumps([facts, *values], sort_keys=True).encode()).hexdigest()[:32]


class Engine(Protocol):
    """What carries out the steps, in one process or in each of several."""

    is_main: bool

    def save(self, folder: Path) -> None:
        """Write weights and optimizer."""

    def wait(self) -> None:
        """Until every process is here."""


class TrainingState:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last, self._cost_s = time.monotonic(), 0.0
        try:
            self._every_s = float(os.environ[EVERY_S]) if EVERY_S in os.environ else None
        except ValueError:
            raise ParamsError(f"{EVERY_S}: must be a number of seconds, got {os.environ[EVERY_S]!r}") from None

    @property
    def keeps(self) -> bool:
        """Whether states are kept at all."""
        return self._every_s != math.inf

    def n_bytes(self) -> int:
        """What an interrupted run has written here."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def begin(self) -> None:
        """Make the folder, and remove what runs of this arm with other inputs left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.parent.iterdir():
            if path != self.folder:
                shutil.rmtree(path, ignore_errors=True)

    def epoch(self, epoch: int) -> Path:
        """Where a candidate epoch is kept."""
        return self.folder / f"epoch_{epoch:02d}"

    def newest(self, epoch_ends: Sequence[tuple[int, int]]) -> Path | None:
        """The state to go on from, if there is one with every candidate that was finished before it.

        Args:
            epoch_ends: each candidate epoch with its last step.
        """
        for path in sorted(self.folder.glob("state-*"), reverse=True):
            if all(self.epoch(epoch).is_dir() for epoch, step in epoch_ends if step <= step_of(path)):
                return path
        return None

    def due(self) -> bool:
        """Whether it is time to keep a state."""
        every_s = max(LEAST_S, SHARE * self._cost_s) if self._every_s is None else self._every_s
        return time.monotonic() - self._last >= every_s

    def keep(self, step: int, engine: Engine, records: Sequence[Sequence[Any]]) -> None:
        """Keep the state after a step, and only then drop the one before. Called by every process.

        Args:
            step: the last that was done.
            engine: writes weights and optimizer.
            records: a row for each step so far.
        """
        begun = time.monotonic()
        path, partial = self.folder / f"state-{step:08d}", self.folder / ".state.partial"
        if engine.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        engine.wait()
        engine.save(partial)
        engine.wait()
        if engine.is_main:
            (partial / "records.json").write_text(json.dumps(records))
            shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)
            for other in self.folder.glob("state-*"):
                if other != path:
                    shutil.rmtree(other, ignore_errors=True)
        self._last = time.monotonic()
        self._cost_s = self._last - begun

    def end(self) -> None:
        """Remove the folder: the outs are whole."""
        shutil.rmtree(self.folder, ignore_errors=True)


def read_records(state: Path) -> list[list[Any]]:
    """The rows that `keep` was given."""
    rows: list[list[Any]] = json.loads((state / "records.json").read_text())
    return rows


def linked(source: Path, target: Path) -> None:
    """Make a folder of hard links to the files of another, copies where the file system has no links."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)


def step_of(state: Path) -> int:
    """The step after which a state was kept."""
    return int(state.name.removeprefix("state-"))
