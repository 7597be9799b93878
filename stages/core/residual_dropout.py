"""LIMA's residual dropout: dropout on what each block adds to the residual stream, more of it higher up."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import dropout


def dropout_rates(p_last: float, n_layers: int) -> list[float]:
    """Rates from 0 at the first layer to `p_last` at the last, linear between (LIMA s3).

    >>> dropout_rates(0.3, 4)
    [0.0, 0.1, 0.2, 0.3]
    """
    if n_layers == 1:
        return [p_last]
    return [round(p_last * layer / (n_layers - 1), 12) for layer in range(n_layers)]


def add_residual_dropout(model: nn.Module, *, p_last: float) -> None:
    """Drop elements of the outputs of attention and MLP before they are added to the residual, while training.

    Where a block normalises what it adds (Gemma 2 and 3, OLMo 2), what is dropped is the normalised output.

    Args:
        model: a causal LM with LLaMA-like blocks (`model.model.layers[i]` with `self_attn` and `mlp`).
        p_last: rate at the last layer, in [0, 1).

    Raises:
        ValueError: the blocks are of another form.
    """
    if p_last == 0:
        return
    layers: Any = getattr(getattr(model, "model", None), "layers", None)
    if layers is None or not all(hasattr(layer, "self_attn") and hasattr(layer, "mlp") for layer in layers):
        raise ValueError(f"residual dropout needs blocks with self_attn and mlp, got {type(model).__name__}")
    for layer, p in zip(layers, dropout_rates(p_last, len(layers)), strict=True):
        if p > 0:
            for module in _added(layer):
                module.register_forward_hook(_dropout_hook(p))


def _added(layer: Any) -> tuple[nn.Module, nn.Module]:  # noqa: ANN401
    """The two modules whose outputs a block adds to the residual."""
    if hasattr(layer, "post_feedforward_layernorm"):
        return layer.post_attention_layernorm, layer.post_feedforward_layernorm
    return layer.self_attn, layer.mlp


def _dropout_hook(p: float) -> Any:  # noqa: ANN401 - torch's hook type
    def hook(module: nn.Module, _inputs: object, output: Any) -> Any:  # noqa: ANN401
        if isinstance(output, tuple):  # attention gives (hidden states, weights)
            return dropout(output[0], p, module.training), *output[1:]
        hidden: torch.Tensor = output
        return dropout(hidden, p, module.training)

    return hook
