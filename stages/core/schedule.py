"""What a training run does at each step: which examples, at which learning rate."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """One optimizer step."""

    step: int  # from 1
    epoch: int  # from 1
    lr: float
    examples: list[int]  # indices, global_batch_size of them; fewer in the last step of an epoch
    ends_epoch: bool


def steps_per_epoch(n_examples: int, *, global_batch_size: int) -> int:
    """Optimizer steps of one epoch; a last partial batch is a step too.

    >>> steps_per_epoch(1000, global_batch_size=64)
    16
    """
    return -(-n_examples // global_batch_size)


def schedule(
    n_examples: int, *, epochs: int, global_batch_size: int, lr: float, lr_end: float, seed: int
) -> Iterator[Step]:
    """Every step of a run: each epoch sees each example once, in its own seeded order; lr is linear over the steps.

    LIMA s3: 15 epochs, lr 1e-5 to 1e-6, no warm-up. The first step has `lr`, the last has `lr_end`.
    """
    n_steps = epochs * steps_per_epoch(n_examples, global_batch_size=global_batch_size)
    step = 0
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(n_examples).tolist()
        for start in range(0, n_examples, global_batch_size):
            done = step / (n_steps - 1) if n_steps > 1 else 0.0
            step += 1
            batch = order[start : start + global_batch_size]
            yield Step(step, epoch, lr + (lr_end - lr) * done, batch, start + global_batch_size >= n_examples)
