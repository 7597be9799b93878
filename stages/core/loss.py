"""The supervised loss and the padded batch it is computed on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

IGNORED = -100  # label of a position without loss


class Batch(NamedTuple):
    """Examples side by side, padded on the right; each tensor is (examples, tokens)."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor  # input_ids where the loss mask is 1, else IGNORED: by position, never by token id


def collate(input_ids: Sequence[Sequence[int]], loss_masks: Sequence[Sequence[int]]) -> Batch:
    """Pad examples to one length."""
    width = max(map(len, input_ids))
    ids, mask, labels = [], [], []
    for tokens, counts in zip(input_ids, loss_masks, strict=True):
        padding = width - len(tokens)
        ids.append(list(tokens) + [0] * padding)
        mask.append([1] * len(tokens) + [0] * padding)
        labels.append([t if c else IGNORED for t, c in zip(tokens, counts, strict=True)] + [IGNORED] * padding)
    return Batch(torch.tensor(ids), torch.tensor(mask), torch.tensor(labels))


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropies, in nats, of each supervised token given those before it.

    A sum, so that a step over many forward passes divides once, by the supervised tokens of the whole step
    (means of means weigh a token by its neighbours).

    Args:
        logits: (examples, tokens, vocabulary).
        labels: (examples, tokens), IGNORED where there is no loss.
    """
    shifted = labels[:, 1:]
    kept = shifted != IGNORED
    return cross_entropy(logits[:, :-1][kept].float(), shifted[kept], reduction="sum")


def n_supervised(labels: torch.Tensor) -> int:
    """Tokens that `summed_loss` sums over."""
    return int((labels[:, 1:] != IGNORED).sum())
