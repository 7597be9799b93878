"""replicas: a batch shared out over the threads of one process, each with the model to itself.

PyTorch's own threads split every single operation and meet after each one. A small model has many small operations,
so they mostly wait, and on a busy machine they wait for a core that others hold. Here each thread runs the whole
forward and backward pass of its rows on one core, and all meet once a step (synchronous data parallelism).
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

P = TypeVar("P")


class Replicas:
    """A model several times over: the weights are shared, the gradients are not.

    The same number of threads gives the same gradients to the bit; another number rounds otherwise.
    """

    def __init__(self, model: Any, n_threads: int) -> None:  # noqa: ANN401 - a transformers causal LM
        self.models = [model, *(_twin(model) for _ in range(n_threads - 1))]
        self._pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> "Replicas":
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown()

    def backward(self, input_ids: torch.Tensor) -> float:
        """Set the first model's gradients to those of the mean loss of a batch of equally long rows.

        Args:
            input_ids: (rows, tokens), at least one row a thread.

        Returns:
            the mean cross-entropy of the batch, in nats a token.
        """
        parts = input_ids.tensor_split(len(self.models))
        losses = self.each(_backward, [(part, len(part) / len(input_ids)) for part in parts])
        self.add_gradients()
        return sum(losses)

    def each(self, function: Callable[[Any, P], float], parts: Sequence[P]) -> list[float]:
        """Call a function for each replica with its part, at once, each on its own thread."""
        assert len(parts) == len(self.models), "a part for each"
        return list(self._pool.map(function, self.models, parts))

    def add_gradients(self) -> None:
        """Give the first model the sum of all gradients, and leave the others none."""
        for own, *others in zip(*(model.parameters() for model in self.models), strict=True):
            for other in others:
                if own.grad is None:
                    own.grad = other.grad
                elif other.grad is not None:
                    own.grad += other.grad
                other.grad = None


def _twin(model: Any) -> Any:  # noqa: ANN401
    twin = copy.deepcopy(model)
    for own, shared in zip(twin.parameters(), model.parameters(), strict=True):
        own.data = shared.data
    return twin


def _backward(model: Any, part: tuple[torch.Tensor, float]) -> float:  # noqa: ANN401
    input_ids, share = part
    loss = share * model(input_ids=input_ids, labels=input_ids, use_cache=False).loss
    loss.backward()
    return float(loss.detach())
