"""LIMA's residual dropout: dropout on what each block adds to the residual stream, more of it higher up.

What is dropped follows from the seed, the step, the example and the layer alone. So a step is the same however its
examples are packed and over however many processes and threads it is shared, a resumed run goes on with the same
masks, and a layer that is computed twice (gradient checkpointing) drops the same elements twice.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def dropout_rates(p_last: float, n_layers: int) -> list[float]:
    """Rates from 0 at the first layer to `p_last` at the last, linear between (LIMA s3).

    >>> dropout_rates(0.3, 4)
    [0.0, 0.1, 0.2, 0.3]
    """
    if n_layers == 1:
        return [p_last]
    return [round(p_last * layer / (n_layers - 1), 12) for layer in range(n_layers)]


class Streams:
    """Where the random numbers of a forward pass come from; each replica of a model has its own."""

    def __init__(self) -> None:
        self._seed = (0, 0)
        self._examples: Sequence[int] = ()
        self._lengths: Sequence[int] = ()
        self._generators: dict[torch.device, torch.Generator] = {}

    def begin(self, *, seed: int, step: int, examples: Sequence[int], lengths: Sequence[int]) -> None:
        """Say what the next forward pass computes: the examples of one packed row, and the tokens of each."""
        self._seed, self._examples, self._lengths = (seed, step), examples, lengths

    def uniform(self, hidden: torch.Tensor, place: int) -> torch.Tensor:
        """Numbers in [0, 1) in the form of `hidden`, (1, T, width), for one place in the model."""
        generator = self._generators.get(hidden.device)
        if generator is None:
            generator = self._generators[hidden.device] = torch.Generator(hidden.device)
        drawn = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device)
        assert drawn.shape[:2] == (1, sum(self._lengths)), "begin() tells of the row that is computed"
        for example, part in zip(self._examples, torch.split(drawn, list(self._lengths), dim=1), strict=True):
            generator.manual_seed(_mixed(*self._seed, example, place))
            part.uniform_(generator=generator)
        return drawn

    def __getstate__(self) -> dict[str, Any]:  # a copied model draws from generators of its own
        return {**self.__dict__, "_generators": {}}


def add_residual_dropout(model: nn.Module, *, p_last: float) -> Streams:
    """Drop elements of the outputs of attention and MLP before they are added to the residual, while training.

    Where a block normalises what it adds (Gemma 2 and 3, OLMo 2), what is dropped is the normalised output.

    Args:
        model: a causal LM with LLaMA-like blocks (`model.model.layers[i]` with `self_attn` and `mlp`).
        p_last: rate at the last layer, in [0, 1).

    Returns:
        the streams that `begin` is to be called on before each forward pass in training.

    Raises:
        ValueError: the blocks are of another form.
    """
    streams = Streams()
    if p_last == 0:
        return streams
    layers: Any = getattr(getattr(model, "model", None), "layers", None)
    if layers is None or not all(hasattr(layer, "self_attn") and hasattr(layer, "mlp") for layer in layers):
        raise ValueError(f"residual dropout needs blocks with self_attn and mlp, got {type(model).__name__}")
    for i, (layer, p) in enumerate(zip(layers, dropout_rates(p_last, len(layers)), strict=True)):
        if p > 0:
            for place, module in enumerate(_added(layer)):
                module.register_forward_hook(_Dropout(p, 2 * i + place, streams))
    return streams


def _added(layer: Any) -> tuple[nn.Module, nn.Module]:  # noqa: ANN401
    """The two modules whose outputs a block adds to the residual."""
    if hasattr(layer, "post_feedforward_layernorm"):
        return layer.post_attention_layernorm, layer.post_feedforward_layernorm
    return layer.self_attn, layer.mlp


class _Dropout:
    """A forward hook; an object, so that a copied model has a copy of it."""

    def __init__(self, p: float, place: int, streams: Streams) -> None:
        self.p = p
        self.place = place
        self.streams = streams

    def __call__(self, module: nn.Module, _inputs: object, output: Any) -> Any:  # noqa: ANN401
        if not module.training:
            return output
        if isinstance(output, tuple):  # attention gives (hidden states, weights)
            return self._drop(output[0]), *output[1:]
        return self._drop(output)

    def _drop(self, hidden: torch.Tensor) -> torch.Tensor:
        kept = self.streams.uniform(hidden, self.place) >= self.p
        return (hidden * kept).mul_(1 / (1 - self.p))


def _mixed(*numbers: int) -> int:
    digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
