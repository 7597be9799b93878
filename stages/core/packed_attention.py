"""packed_attention: causal attention of examples that lie end to end in one row, each to itself.

Registered with transformers under the name NAME, for every model that takes its attention from transformers'
AttentionInterface. The row's example lengths travel as the keyword `segments` through the model's forward.

On CUDA in 16 bits it is FlashAttention over variable lengths, from PyTorch itself (`torch.nn.attention.varlen`).
Elsewhere the examples go through PyTorch's scaled dot product attention, short ones of like length side by side.
Sliding windows and soft caps (Mistral, Gemma) are kept.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "packed"
LONG = 512  # tokens from which an example gains nothing by company


class Segments:
    """Where each example of a row of T tokens lies."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(lengths)  # tokens of each example, in order
        self.longest = max(lengths)
        self._device = device

    @cached_property
    def ends(self) -> torch.Tensor:
        """(n + 1,) int32: 0, then where each example ends."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self._device)

    @cached_property
    def groups(self) -> "Groups":
        """The examples side by side with those of like length."""
        return _grouped(self.lengths, self._device)


class Groups(NamedTuple):
    """Examples of a row, those of like length side by side: the longest of a group is under twice its shortest."""

    rows: list[tuple[torch.Tensor, int]]  # for each group the tokens to take, (n x width,), and its width
    back: torch.Tensor  # (T,) where each token then lies, the groups end to end


def _grouped(lengths: Sequence[int], device: torch.device) -> Groups:
    starts = [0, *accumulate(lengths)]
    groups: list[list[int]] = []
    for example in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and lengths[example] < 2 * lengths[groups[-1][0]] and lengths[example] <= LONG:
            groups[-1].append(example)
        else:
            groups.append([example])
    rows, back, offset = [], [0] * starts[-1], 0
    for group in groups:
        width = lengths[group[-1]]
        taken = []
        for example in group:
            start, n = starts[example], lengths[example]
            taken += [*range(start, start + n), *[start] * (width - n)]  # what fills up is seen by nothing before it
            back[start : start + n] = range(offset, offset + n)
            offset += width
        rows.append((torch.tensor(taken, device=device), width))
    return Groups(rows, torch.tensor(back, device=device))


def register() -> None:
    """Make the attention known to transformers; it builds no mask for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def attend(
    module: Any,  # noqa: ANN401 - a transformers attention module
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,  # noqa: ANN401
) -> tuple[torch.Tensor, None]:
    """Attend within each example of a packed row, in the form that transformers calls.

    Args:
        module: unused; the interface passes it.
        query: (1, heads, T, head size).
        key: (1, key-value heads, T, head size); heads share them where they are fewer.
        value: as key.
        attention_mask: None.
        segments: the examples of the row, T tokens in all.
        scaling: factor of the scores.
        dropout: of the attention weights; 0.
        sliding_window: tokens that a token sees, itself included; None: all before it.
        softcap: scores are held within this by a tanh (Gemma 2); None: not.
        others: what else a model passes; extra terms of the scores are refused.

    Returns:
        (1, T, heads, head size), and no weights.

    Raises:
        ValueError: the model's attention has a part that this one lacks.
    """
    unknown = [name for name in ("s_aux", "position_bias") if others.get(name) is not None]
    if unknown or dropout or attention_mask is not None:
        what = unknown[0] if unknown else "dropout" if dropout else "a mask"
        raise ValueError(f"packed attention does not know {what} of {type(module).__name__}")
    if query.is_cuda and torch.is_autocast_enabled("cuda"):  # rotated queries and keys come in fp32
        query, key, value = (states.to(torch.get_autocast_dtype("cuda")) for states in (query, key, value))
    if segments.longest <= (sliding_window or 0):
        sliding_window = None
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and softcap is None and query.shape[-1] <= 256:
        return _varlen(query, key, value, segments, scaling=scaling, sliding_window=sliding_window), None
    if key.shape[1] != query.shape[1]:
        key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for states in (key, value))
    tokens = [states[0].transpose(0, 1) for states in (query, key, value)]  # (T, heads, head size)
    outputs = []
    for taken, width in segments.groups.rows:
        part = (s.index_select(0, taken).view(-1, width, *s.shape[1:]).transpose(1, 2) for s in tokens)
        attended = _causal(*part, scaling=scaling, sliding_window=sliding_window, softcap=softcap)
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, segments.groups.back)[None], None


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    scaling: float,
    sliding_window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    window = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)  # tokens to the left, besides itself
    attended: Any = varlen_attn(
        query[0].transpose(0, 1).contiguous(),  # (T, heads, head size)
        key[0].transpose(0, 1).contiguous(),
        value[0].transpose(0, 1).contiguous(),
        segments.ends,
        segments.ends,
        segments.longest,
        segments.longest,
        scale=scaling,
        window_size=window,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended[None]  # type: ignore[no-any-return]


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scaling: float,
    sliding_window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Some examples side by side: (examples, heads, tokens, head size) each."""
    if sliding_window is None and softcap is None:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    n = query.shape[2]
    position = torch.arange(n, device=query.device)
    distance = position[:, None] - position
    seen = (distance >= 0) & (distance < (sliding_window or n))
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    scores = (query @ key.transpose(2, 3) * scaling / softcap).tanh() * softcap
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1, dtype=torch.float32).to(query.dtype)
    return weights @ value
