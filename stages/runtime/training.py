"""Training in one process on CPU, and what every way of carrying out a step has in common.

All ways (stages/runtime/ranks.py has the others) give the same step: the gradient of the sum over the step's supervised
tokens of their losses, divided once by their number, whatever the packs, threads and processes; then clipping by its
global norm and the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stages.core.packed_loss import SupervisedLoss
from stages.core.packing import Pack
from stages.core.replicas import Replicas

Check = Callable[[float, float], None]  # told a step's loss and gradient norm before the weights change; may raise
SMALL = 20_000_000  # weights, up to which threads with a replica each beat threads that split operations


class Work(NamedTuple):
    """What this process computes in a step."""

    seed: int
    step: int
    lr: float
    packs: list[list[Pack]]  # for each of its workers, as many on every process where processes share the work
    n_parts: list[int]  # chunks of logits of the i-th pack of any worker, on any process
    n_tokens: int  # supervised, of the whole step on all processes


class Done(NamedTuple):
    """What a step was like."""

    loss: float  # nats a supervised token, before the step
    grad_norm: float  # global norm of the gradient, before clipping


class Recipe(NamedTuple):
    """What every way has in common."""

    optimizer: Callable[[Any], torch.optim.Optimizer]  # of a causal LM, whose parameters it names
    max_grad_norm: float | None
    is_bf16: bool


class Threads:
    """One process on CPU: a small model as replicas on threads, a larger one on PyTorch's own threads."""

    dtype = torch.float32  # of the weights that are trained
    is_main = True
    mine = slice(None)  # of the workers
    n_workers = 1

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._replicas: Replicas | None = None

    def prepare(self, loss: SupervisedLoss) -> None:
        """Take the model on."""
        n_weights = sum(parameter.numel() for parameter in loss.parameters())
        self.n_workers = torch.get_num_threads() if n_weights <= SMALL else 1
        self.loss = loss
        self.model, self.vocab_size = loss.model, loss.vocab_size
        self.optimizer = self.recipe.optimizer(loss.model)
        if self.n_workers > 1:
            self._replicas = Replicas(loss, self.n_workers)

    def close(self) -> None:
        """End the threads."""
        if self._replicas is not None:
            self._replicas.__exit__()

    def take(self, work: Work, check: Check) -> Done:
        """Carry out one step.

        Args:
            work: the step.
            check: told the loss and the gradient's norm before the weights change.
        """
        parts = [(work, packs, self.recipe.is_bf16) for packs in work.packs]
        if self._replicas is None:
            total = sum(_on_cpu(self.loss, part) for part in parts)
        else:
            total = sum(self._replicas.each(_on_cpu, parts))
            self._replicas.add_gradients()
        norm = clip(self.loss, self.recipe.max_grad_norm)
        check(total / work.n_tokens, norm)
        _update(self.optimizer, work.lr)
        return Done(total / work.n_tokens, norm)

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights under the names of the causal LM, with what was added to it."""
        weights: dict[str, torch.Tensor] = self.model.state_dict()
        return weights

    def same(self, number: int) -> bool:
        """Whether all processes have the same number."""
        return True

    def agree(self, wish: bool) -> bool:
        """What the first process wishes."""
        return wish

    def wait(self) -> None:
        """Until every process is here."""

    def save(self, folder: Path) -> None:
        """Write what a run can go on from."""
        save_trained(self.model, self.optimizer, folder)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        load_trained(self.model, self.optimizer, folder)


def save_trained(model: Any, optimizer: torch.optim.Optimizer, folder: Path) -> None:  # noqa: ANN401
    """Write the weights that are trained, and the optimizer."""
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    torch.save({"weights": weights, "optimizer": optimizer.state_dict()}, folder / "state.pt")


def load_trained(model: Any, optimizer: torch.optim.Optimizer, folder: Path) -> None:  # noqa: ANN401
    """Take what `save_trained` wrote."""
    state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])


def _on_cpu(loss: SupervisedLoss, part: tuple[Work, list[Pack], bool]) -> float:
    work, packs, is_bf16 = part
    total = 0.0
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
        for pack, n_parts in zip(packs, work.n_parts, strict=True):
            if not pack.examples:
                continue
            summed = loss(pack, n_parts, (work.seed, work.step))
            (summed / work.n_tokens).backward()
            total += summed.item()
    return total


def clip(module: torch.nn.Module, max_norm: float | None) -> float:
    """Clip gradients by their global norm, and give what it was."""
    return float(torch.nn.utils.clip_grad_norm_(module.parameters(), math.inf if max_norm is None else max_norm))


def _update(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
