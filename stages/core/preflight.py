"""preflight: what a run is expected to take beside what a trial of it took, and what to do where it has no room."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stages.core.packing import share_out
from stages.core.schedule import Step
from stages.core.topology import STRATEGY
from stages.core.training_cost import Run, gb, gib


def heaviest(steps: Iterable[Step], lengths: Sequence[int], *, max_tokens: int, n_workers: int) -> Step:
    """The step with the largest pack, which decides the memory; of several the one with the most tokens, the first.

    Args:
        steps: of the run, one at least.
        lengths: tokens of every example there is.
        max_tokens: of a pack.
        n_workers: processes or threads that compute at once.
    """

    def weight(step: Step) -> tuple[int, int]:
        plan = share_out(step.examples, lengths, max_tokens=max_tokens, n_workers=n_workers)
        sizes = [sum(lengths[i] for i in pack) for packs in plan for pack in packs]
        return max(sizes), sum(sizes)

    return max(steps, key=weight)


class Told(NamedTuple):
    """What a run takes; None where nothing is known."""

    memory_bytes: float  # of a process: weights, gradients, optimizer, activations
    candidate_bytes: float  # of one candidate epoch on disk
    run_s: float | None  # of all that is left to do


def table(estimate: Told, measured: Told, *, arm: str, memory_bytes: int, run: Run) -> str:
    """Estimate beside measurement, for a person.

    Args:
        estimate: by the formulas of training_cost.
        measured: by the trial.
        arm: named in the first line.
        memory_bytes: that a process may take.
        run: that lies before.
    """
    rows = [
        (f"sft {arm}: preflight", "estimate", "measured", ""),
        ("  memory a process", gib(estimate.memory_bytes), gib(measured.memory_bytes), f"of {gib(memory_bytes)}"),
        (
            "  disk a candidate",
            gb(estimate.candidate_bytes),
            gb(measured.candidate_bytes),
            f"{run.n_candidates} of them",
        ),
        ("  time of the run", span(estimate.run_s), span(measured.run_s), f"{run.n_steps} steps"),
    ]
    width = max(len(name) for name, *_ in rows)
    return "\n".join(f"{name:<{width}}{told:>12}{found:>12}  {note}".rstrip() for name, told, found, note in rows)


def remedies(strategy: str | None, *, checkpoints: bool, micro_batch_tokens: int, longest: int, is_lora: bool) -> str:
    """What makes a run need less memory, the cheapest first, as the end of a sentence.

    Args:
        strategy: that it has now on GPUs; None on CPU.
        checkpoints: whether activations are computed again.
        micro_batch_tokens: of a forward pass.
        longest: tokens of the longest example, which a forward pass has to hold.
        is_lora: whether LoRA is what is trained.

    >>> remedies("zero2", checkpoints=True, micro_batch_tokens=2048, longest=2048, is_lora=True)
    'set LIMA_STRATEGY=zero3, take more GPUs, or a smaller base'
    """
    further = {"single": "zero3-offload", "ddp": "zero2", "zero2": "zero3", "zero3": "zero3-offload"}
    ways = []
    if not checkpoints:
        ways.append("set sft.gradient_checkpointing to true")
    if micro_batch_tokens > longest:
        ways.append(f"lower sft.micro_batch_tokens ({micro_batch_tokens}; the longest example has {longest})")
    if strategy in further:
        ways.append(f"set {STRATEGY}={further[strategy]}")
    if not is_lora:
        ways.append("set sft.method to lora")
    ways.append("take a machine with more memory" if strategy is None else "take more GPUs")
    return ", ".join([*ways, "or a smaller base"])


def span(seconds: float | None) -> str:
    """A span of time.

    >>> span(None), span(8), span(100), span(10_000)
    ('-', '8 s', '1.7 min', '2.8 h')
    """
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
