"""run.json: what a training ran with, on what, and for how long; the only out of `sft` that holds a clock."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stages.common.files import write_json
from stages.core.training_cost import Run, flops
from stages.runtime.machine import hardware, peak_bytes, peak_of_gpu, versions

PARTS = ("load", "preflight", "train", "save", "evaluate")  # evaluate: nothing; `generate` judges the candidates


class Times:
    """Seconds of each part of a run, over all the starts that it took; the first part is `load`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.n_starts = 1
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._clock, self._part, self._since = clock, PARTS[0], clock()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count what follows for a part, and not for the one around it."""
        around = self._part
        self._turn(part)
        try:
            yield
        finally:
            self._turn(around)

    def keep(self, folder: Path) -> None:
        """Write what a later start goes on from."""
        self._turn(self._part)
        kept = {"seconds": self.seconds, "n_starts": self.n_starts, "started": self.started}
        write_json(folder / "times.json", kept)

    def go_on(self, folder: Path) -> None:
        """Add the times of the starts before this one, up to the state that it goes on from."""
        path = folder / "times.json"
        if not path.is_file():  # killed between the first state and its times
            return
        kept = json.loads(path.read_text())
        for part in PARTS:
            self.seconds[part] += kept["seconds"][part]
        self.n_starts += kept["n_starts"]
        self.started = kept["started"]

    def _turn(self, part: str) -> None:
        now = self._clock()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now


def record(engine: Any, run: Run, times: Times) -> dict[str, Any]:  # noqa: ANN401
    """What run.json holds.

    Args:
        engine: that carried it out.
        run: that is done.
        times: of all its starts.
    """
    rank, peak, train_s = engine.rank, peak_of_gpu(), times.seconds["train"]
    n_tokens = sum(run.lengths)
    done = flops(run.shape, run.lengths, rank=run.setting.rank)
    return {
        "started": times.started,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_starts": times.n_starts,
        "times": {f"{part}_s": times.seconds[part] for part in PARTS},
        "speed": {
            "n_steps": run.n_steps,
            "n_tokens": n_tokens,  # real ones: there is no padding
            "tokens_per_s": n_tokens / train_s,
            "mfu": done / train_s / (peak * rank.world_size) if peak else None,
            "peak_bytes": peak_bytes(),  # of the process that writes
        },
        "topology": {
            "strategy": engine.strategy,
            "n_hosts": rank.world_size // rank.n_on_host,
            "n_processes": rank.world_size,
            "n_workers": engine.n_workers,  # processes, or threads of the only one, that compute at once
        },
        "hardware": hardware(),
        "versions": versions(),
    }
