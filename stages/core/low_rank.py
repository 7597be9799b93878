"""low_rank: LoRA for all linear maps of the blocks, and a row of the embeddings that learns.

A map W (out, in) stays as it is and becomes W + alpha / rank x B A, with A (rank, in) drawn at random and B (out, rank)
zero (Hu et al. 2021, "LoRA", section 4.1).

The embeddings stay as they are, too, but for one token: a new EOT, which starts as the mean of all, could otherwise
hardly be told from any of them, and not be emitted. What its row learns is a difference, one for the input and one for
the head, or one for both where they are tied. (peft's `trainable_token_indices` copies the whole matrix in every pass,
computes the gradient of all of it, and finds nothing where ZeRO-3 has sharded it.)
"""

from typing import Any

import torch
from torch import nn


class LearnedRow(nn.Module):
    """What is added to a row of a frozen matrix; a module, so that what shards weights brings it when it is called."""

    def __init__(self, token: int, width: int) -> None:
        super().__init__()
        self.token = token
        self.difference = nn.Parameter(torch.zeros(width))

    def forward(self) -> torch.Tensor:
        """The difference, (width,)."""
        return self.difference


def add_low_rank(model: Any, *, rank: int, alpha: float, token: int, seed: int, dtype: torch.dtype) -> None:  # noqa: ANN401
    """Freeze a causal LM, and add what is trained in its place.

    Args:
        model: a transformers causal LM; its linear maps become peft's.
        rank: of the matrices.
        alpha: their product counts alpha / rank times.
        token: id whose embedding learns.
        seed: of the random matrices.
        dtype: of what is trained.
    """
    from peft import LoraConfig, inject_adapter_in_model

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head.weight is embedding.weight
    with torch.random.fork_rng(devices=[]):  # the same on every process
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"), model)
    row = embedding.learned_row = LearnedRow(token, embedding.embedding_dim).to(embedding.weight.device)
    embedding.register_forward_hook(_OfInput(row))
    if not is_tied:
        row = head.learned_row = LearnedRow(token, embedding.embedding_dim).to(embedding.weight.device)
    head.register_forward_hook(_OfHead(row))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


class _OfInput:
    """A forward hook; an object, so that a copied model has a copy of it."""

    def __init__(self, row: LearnedRow) -> None:
        self.row = row

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.row() * getattr(module, "embed_scale", 1.0)  # Gemma's
        return output + (inputs[0] == self.row.token).unsqueeze(-1) * scaled.to(output.dtype)


class _OfHead(_OfInput):
    """The same for logits."""

    def __call__(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        output[..., self.row.token] += (inputs[0] @ self.row().to(inputs[0].dtype)).to(output.dtype)
        return output


def merged(model: Any, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Weights of the plain model, from those of one with `add_low_rank`; sums in fp32.

    Args:
        model: says where something was added; its own weights may be elsewhere, in shards.
        weights: all of it, by name. What nothing was added to comes back as it is.
    """
    weights = dict(weights)
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            a, b = (weights.pop(f"{name}.lora_{side}.default.weight").float() for side in "AB")
            base = weights.pop(f"{name}.base_layer.weight")
            weights[f"{name}.weight"] = (base.float() + module.scaling["default"] * (b @ a)).to(base.dtype)
            if f"{name}.base_layer.bias" in weights:
                weights[f"{name}.bias"] = weights.pop(f"{name}.base_layer.bias")
        elif hasattr(module, "learned_row"):
            rows = weights[f"{name}.weight"] = weights[f"{name}.weight"].clone()
            rows[module.learned_row.token] += weights.pop(f"{name}.learned_row.difference").to(rows.dtype)
            if module is model.get_input_embeddings() and not hasattr(model.get_output_embeddings(), "learned_row"):
                tied = next(n for n, m in model.named_modules() if m is model.get_output_embeddings())
                weights.pop(f"{tied}.weight", None)
    return weights
