"""A trial before the first step: the heaviest batch forward and backward, and a candidate saved and loaded again.

It changes nothing that the run follows from: no step of the optimizer, gradients dropped, random numbers put back.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stages.common.errors import InputError
from stages.core.preflight import Told
from stages.core.training_cost import Run, disk, flops, memory, seconds, update_seconds
from stages.runtime.machine import peak_bytes, peak_of_gpu
from stages.runtime.model import load_model
from stages.runtime.training import Work
from stages.runtime.training_state import SHARE

Save = Callable[[Path], dict[str, torch.Tensor] | None]  # writes a candidate; in the first process gives its weights


class Trial(NamedTuple):
    """What was measured."""

    step_s: float  # forward and backward pass of the step
    peak_bytes: int  # of this process, with the optimizer's moments
    save_s: float
    load_s: float
    candidate_bytes: int  # on disk; 0 but in the first process


def rehearse(engine: Any, work: Work, save: Save, folder: Path) -> Trial:  # noqa: ANN401
    """Try a step and a candidate. Called by every process.

    Args:
        engine: what carries out the steps.
        work: the heaviest of them.
        save: writes a candidate to a folder.
        folder: is made, and removed again.

    Raises:
        InputError: what was saved is not what is loaded.
    """
    is_on_gpu = torch.cuda.is_available()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if is_on_gpu else []):
        moments = torch.empty(engine.moments_to_come(), dtype=torch.uint8, device="cuda" if is_on_gpu else "cpu")
        for _ in range(2 if is_on_gpu else 1):  # the first pass of a GPU also loads its kernels
            begun = time.monotonic()
            engine.rehearse(work)
            step_s = time.monotonic() - begun
        # An empty tensor takes GPU memory at once, but of the host only what is written to.
        peak = peak_bytes() + (0 if is_on_gpu else moments.nbytes)
        del moments
        engine.wait()
        begun = time.monotonic()
        weights = save(folder)
        save_s = time.monotonic() - begun
        load_s, n_bytes = 0.0, 0
        if weights is not None:
            try:
                load_s = _load_again(engine, folder, weights)
                n_bytes = sum(path.stat().st_size for path in folder.iterdir())
            finally:
                shutil.rmtree(folder)
        engine.wait()
    return Trial(step_s, peak, save_s, load_s, n_bytes)


def _load_again(engine: Any, folder: Path, weights: dict[str, torch.Tensor]) -> float:  # noqa: ANN401
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    begun = time.monotonic()
    with engine.plainly():
        loaded = load_model(folder, dtype=dtype, where={"device_map": {"": "cpu"}}).state_dict()
    took_s = time.monotonic() - begun
    known = {loaded[name].data_ptr() for name in weights if name in loaded}  # tied ones lie in one place
    wrong = [
        *(name for name, saved in weights.items() if name not in loaded or not torch.equal(loaded[name], saved.cpu())),
        *(name for name, weight in loaded.items() if name not in weights and weight.data_ptr() not in known),
    ]
    if wrong:
        raise InputError(
            f"{folder}: a model that was saved there loads with another {wrong[0]}; look at the disk, or at how "
            "transformers saves a model of this family"
        )
    return took_s


def expected(engine: Any, run: Run) -> Told:  # noqa: ANN401
    """What the formulas say of a run."""
    shared = {"n_processes": engine.rank.world_size, "n_on_host": engine.rank.n_on_host}
    peak = peak_of_gpu()
    return Told(
        memory(run.shape, run.setting, engine.strategy, **shared).device,
        disk(run.shape, run.setting, n_candidates=1).candidates,
        seconds(run, engine.strategy, peak=peak, **shared) if peak else None,
    )


def found(
    engine: Any,  # noqa: ANN401
    run: Run,
    trial: Trial,
    tried: Sequence[int],
    *,
    keeps_states: bool,
) -> Told:
    """What a trial says of a run.

    Args:
        engine: that carried it out.
        run: that lies before.
        trial: what was measured.
        tried: tokens of each example of the step that was tried.
        keeps_states: whether states to resume from are kept, in a share of the time.
    """
    rank = run.setting.rank
    steps_s = trial.step_s * flops(run.shape, run.lengths, rank=rank) / flops(run.shape, tried, rank=rank)
    n_processes, n_on_host = engine.rank.world_size, engine.rank.n_on_host
    steps_s += run.n_steps * update_seconds(run, engine.strategy, n_processes=n_processes, n_on_host=n_on_host)
    if keeps_states:
        steps_s *= 1 + 1 / SHARE
    run_s = steps_s + run.n_candidates * trial.save_s
    return Told(trial.peak_bytes - engine.held_before, trial.candidate_bytes, run_s)


@contextmanager
def told_of_no_room(what: Callable[[], str]) -> Iterator[None]:
    """One sentence for memory that ran out on the device or on the host.

    Args:
        what: gives the sentence after "sft: ".

    Raises:
        InputError: in place of the library's error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        raise InputError(f"sft: {what()}") from None
