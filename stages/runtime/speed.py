"""How fast a training run goes, for its progress bar."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from stages.core.training_cost import flops, peak_flops
from stages.runtime.shapes import read_shape


class Speed:
    """Real tokens a second since the first step was done, and model FLOPs utilisation where a card's peak is known."""

    def __init__(
        self, base: Path, *, n_processes: int, rank: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._rank = clock, rank  # LoRA's
        peak = peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        self._peak = peak and peak * n_processes
        self._shape = read_shape(base) if peak else None
        self._start: float | None = None
        self._n_tokens, self._flops = 0, 0.0

    def after(self, lengths: Sequence[int]) -> dict[str, str]:
        """What to show after a step over examples of these lengths, in tokens; the first is slower and not counted."""
        now = self._clock()
        if self._start is None:
            self._start = now
            return {}
        self._n_tokens += sum(lengths)
        seconds = max(now - self._start, 1e-9)
        told = {"tok/s": f"{self._n_tokens / seconds:,.0f}"}
        if self._shape and self._peak:
            self._flops += flops(self._shape, lengths, rank=self._rank)
            told["mfu"] = f"{self._flops / seconds / self._peak:.0%}"
        return told
