"""packing: the examples of a step end to end, without padding, shared out to whoever computes.

Three examples in a row of T = 9 tokens:

    input_ids      5 6 7 8 | 9 3 | 4 4 1
    position_ids   0 1 2 3 | 0 1 | 0 1 2    restart with each example
    lengths        4         2     3        attention stays within an example (stages/core/packed_attention.py)
    predict        0 1 2     4       7      positions whose output predicts a token with a loss, never across examples
    targets        6 7 8     3       1      those tokens: chosen by position, never by token id
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class Pack(NamedTuple):
    """Some examples as one row of tokens."""

    examples: tuple[int, ...]  # indices, in the order of the row
    lengths: tuple[int, ...]  # tokens of each
    input_ids: torch.Tensor  # (1, T)
    position_ids: torch.Tensor  # (1, T)
    predict: torch.Tensor  # (n_supervised,) positions in the row whose output predicts a supervised token
    targets: torch.Tensor  # (n_supervised,) those tokens


def n_supervised(loss_mask: Sequence[int]) -> int:
    """Tokens of one example that have a loss; the first has nothing before it that could predict it.

    >>> n_supervised([1, 0, 1, 1])
    2
    """
    return sum(map(bool, loss_mask[1:]))


def pack(examples: Sequence[int], input_ids: Sequence[Sequence[int]], loss_masks: Sequence[Sequence[int]]) -> Pack:
    """Lay examples end to end.

    Args:
        examples: which; none gives an empty row.
        input_ids: of every example there is, each of one token or more.
        loss_masks: as input_ids; 1 where a token has a loss.
    """
    ids: list[int] = []
    positions: list[int] = []
    predict: list[int] = []
    targets: list[int] = []
    for example in examples:
        tokens, mask = input_ids[example], loss_masks[example]
        supervised = [t for t in range(1, len(tokens)) if mask[t]]
        predict += [len(ids) + t - 1 for t in supervised]
        targets += [tokens[t] for t in supervised]
        ids += tokens
        positions += range(len(tokens))
    rows: list[Any] = [ids, positions, predict, targets]
    row, position_row, where, what = (torch.tensor(values, dtype=torch.long) for values in rows)
    lengths = tuple(len(input_ids[example]) for example in examples)
    return Pack(tuple(examples), lengths, row[None], position_row[None], where, what)


def share_out(
    examples: Sequence[int], lengths: Sequence[int], *, max_tokens: int, n_workers: int
) -> list[list[list[int]]]:
    """Split a step's examples into packs of at most `max_tokens`, as many for each worker, of like sizes.

    The longest first, each into the pack that has the fewest tokens (longest processing time first); one pack more a
    worker as long as they do not fit. Sharded training meets in every forward pass, so no worker may have a pack more
    than another: one may stay empty where there are fewer examples than workers.

    Args:
        examples: indices of the step's examples.
        lengths: tokens of every example there is; none is over max_tokens.
        max_tokens: of a pack.
        n_workers: processes or threads that compute at once.

    Returns:
        for each worker its packs, in order, each a list of examples in rising order.

    >>> share_out([0, 1, 2, 3], [5, 3, 2, 2], max_tokens=6, n_workers=1)
    [[[0], [1, 2], [3]]]
    """
    longest_first = sorted(examples, key=lambda example: (-lengths[example], example))
    n_tokens = sum(lengths[example] for example in examples)
    n_each = max(1, -(-n_tokens // (max_tokens * n_workers)))
    while (packs := _spread(longest_first, lengths, max_tokens=max_tokens, n_packs=n_each * n_workers)) is None:
        n_each += 1
    return [[sorted(pack) for pack in packs[worker::n_workers]] for worker in range(n_workers)]


def _spread(
    longest_first: Sequence[int], lengths: Sequence[int], *, max_tokens: int, n_packs: int
) -> list[list[int]] | None:
    packs: list[list[int]] = [[] for _ in range(n_packs)]
    sizes = [0] * n_packs
    for example in longest_first:
        smallest = min(range(n_packs), key=sizes.__getitem__)
        if sizes[smallest] + lengths[example] > max_tokens:
            return None
        packs[smallest].append(example)
        sizes[smallest] += lengths[example]
    return packs
