"""facility_location: the rows that stand for all, greedily.

Maximises the sum, over the represented rows, of the similarity to the nearest drawn one (Cornuejols, Fisher & Nemhauser
1977; within 1 - 1/e of the best, Nemhauser et al. 1978). Each next row is the one that adds most, the earliest of
several. *Ours*: a similarity below a limit counts as the limit, so that a row is represented by what is like it or not
at all. The limit is 0 where all pairs can be kept, up to 3,162 rows; else as many of the most alike are kept as fit,
and the draws after the first cost little.

Lazy (Minoux 1978): what a row adds only falls as others are drawn, so an old figure is a bound, and only rows with the
highest bounds are looked at again. All sums are of whole numbers and exact: the picks are those of the plain greedy.
Cost: rows x represented rows x dimensions, once (half of it where all rows are represented). Memory: 8 bytes a pair
that is kept, 80 MB or 800 bytes a row, whichever is more, and twice that while they are collected.
"""

from typing import Any, NamedTuple

import numpy as np

from stages.core.vectors import F32, F64, I64

_BLOCK = 1024  # rows of which similarities are worked out together
_BATCH = 32  # rows that are looked at again together
_FRONT = 1024  # rows with the highest bounds, among which the next is looked for
_KEPT = 10_000_000  # pairs that are kept, about,
_KEPT_EACH = 100  # or of each row, if that is more

I32 = np.ndarray[Any, np.dtype[np.int32]]
U16 = np.ndarray[Any, np.dtype[np.uint16]]


class Near(NamedTuple):
    """For each row the represented rows that are more like it than `limit`; row i's begin at offsets[i]."""

    limit: float
    offsets: I64  # (n_rows + 1,)
    targets: I32  # (n_pairs,)
    similar: F32  # (n_pairs,)

    def added(self, rows: I64, nearest: F32) -> F64:
        """What each row would add, shape (n_rows,), where `nearest` (n_represented,) are the nearest drawn rows."""
        n = self.offsets[rows + 1] - self.offsets[rows]
        ends = np.cumsum(n)
        at = np.arange(n.sum()) + np.repeat(self.offsets[rows] - (ends - n), n)
        gains = np.maximum(self.similar[at] - nearest[self.targets[at]], 0)
        sums = np.concatenate([np.zeros(1), np.cumsum(gains, dtype=np.float64)])
        return np.asarray(sums[ends] - sums[ends - n])

    def draw(self, row: int, nearest: F32) -> None:
        """Take a row into the draw: raise `nearest` in place."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        nearest[self.targets[part]] = np.maximum(nearest[self.targets[part]], self.similar[part])


def facility_location(vectors: F32, n: int, *, represented: I64 | None = None) -> I64:
    """Order the first n rows, each the one that adds most to those before it.

    Args:
        vectors: fixed-point, shape (n_rows, n_dimensions).
        n: rows to draw, at most n_rows.
        represented: numbers of the rows that are to be represented; None: all.

    Returns:
        (n,) row numbers.
    """
    targets = vectors if represented is None else vectors[represented]
    near = near_pairs(vectors, targets, is_all=represented is None)
    nearest = np.full(len(targets), near.limit, dtype=np.float32)
    bounds = np.concatenate([near.added(rows, nearest) for rows in _blocks(len(vectors))])
    known = np.zeros(len(vectors), dtype=np.int64)  # how many picks a row's bound knows of
    picks: list[int] = []
    while len(picks) < n:
        front, limit = _highest(bounds, _FRONT)
        while len(picks) < n:
            at = int(front[bounds[front].argmax()])
            if (-bounds[at], at) >= limit:  # a row outside may add as much
                break
            if known[at] == len(picks):
                picks.append(at)
                near.draw(at, nearest)
                bounds[at], known[at] = -np.inf, n  # not looked at again
            else:
                old = front[known[front] < len(picks)]
                rows = old[np.argsort(-bounds[old], kind="stable")[:_BATCH]]
                bounds[rows], known[rows] = near.added(rows, nearest), len(picks)
    return np.array(picks, dtype=np.int64)


def _blocks(n: int) -> list[I64]:
    return [np.arange(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)] or [np.arange(0)]


def _highest(bounds: F64, n: int) -> tuple[I64, tuple[float, int]]:
    """The n highest bounds' rows, ascending, the earlier first among equals; and (-bound, row) of the next."""
    if len(bounds) <= n:
        return np.arange(len(bounds)), (np.inf, len(bounds))
    place = len(bounds) - n - 1
    limit = np.partition(bounds, place)[place]
    above, equal = np.flatnonzero(bounds > limit), np.flatnonzero(bounds == limit)
    n_equal = n - len(above)
    return np.sort(np.concatenate([above, equal[:n_equal]])), (-float(limit), int(equal[n_equal]))


class _Piece(NamedTuple):
    """Some pairs of a block of rows."""

    rows: U16  # from the block's first
    targets: I32
    similar: F32


def near_pairs(vectors: F32, targets: F32, *, is_all: bool) -> Near:
    """Find the pairs above the limit, block by block; where the targets are the rows, a pair of blocks gives both."""
    limit = limit_of(vectors, targets)
    firsts = range(0, len(vectors), _BLOCK)
    pieces: list[list[_Piece]] = [[] for _ in firsts]
    for block, first in enumerate(firsts):
        for other in range(first if is_all else 0, len(targets), _BLOCK):
            similar = vectors[first : first + _BLOCK] @ targets[other : other + _BLOCK].T
            rows, columns = np.divmod(np.flatnonzero(similar > limit), similar.shape[1])
            values = similar[rows, columns]
            pieces[block].append(_Piece(rows.astype(np.uint16), (columns + other).astype(np.int32), values))
            if is_all and other > first:
                mirrored = _Piece(columns.astype(np.uint16), (rows + first).astype(np.int32), values)
                pieces[other // _BLOCK].append(mirrored)
    return _joined(pieces, len(vectors), limit)


def limit_of(vectors: F32, targets: F32) -> float:
    """The similarity that only as many pairs as are kept lie above, judged by some of them; 0 where all are kept."""
    n_pairs, n_kept = len(vectors) * len(targets), max(_KEPT, _KEPT_EACH * len(vectors))
    if n_pairs <= n_kept:
        return 0.0
    some = vectors[:: -(-len(vectors) // 256)] @ targets[:: -(-len(targets) // 2048)].T
    place = int((1 - n_kept / n_pairs) * (some.size - 1))
    return max(0.0, float(np.partition(some, place, axis=None)[place]))


def _joined(pieces: list[list[_Piece]], n_rows: int, limit: float) -> Near:
    n = np.zeros(n_rows + 1, dtype=np.int64)
    targets, similar = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for block, parts in enumerate(pieces):
        rows = np.concatenate([part.rows for part in parts])
        counts = np.bincount(rows)
        n[block * _BLOCK + 1 : block * _BLOCK + 1 + len(counts)] = counts
        order = np.argsort(rows, kind="stable")  # of 16 bits: a radix sort
        targets.append(np.concatenate([part.targets for part in parts])[order])
        similar.append(np.concatenate([part.similar for part in parts])[order])
        parts.clear()
    return Near(limit, np.cumsum(n), np.concatenate(targets), np.concatenate(similar))
