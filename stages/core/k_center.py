"""k_center: the rows that leave no row far from a drawn one, farthest first.

Gonzalez 1985, and the greedy core set of Sener & Savarese 2018 (arXiv:1708.00489, Algorithm 1): each next row is the
one least like its nearest drawn row. *Ours*: the first is the row most like the mean, and of rows equally far the
earliest is drawn.

It covers the extremes: outliers come first, and the mean coverage of a pool may be below that of a random draw.
Cost: n x rows x dimensions at most. Here most rows are not looked at for most draws: a row's similarity to its nearest
drawn row only rises, so what was known of it some draws ago is a bound, and only the rows with the lowest bounds can be
next. The picks are those of the plain algorithm.
"""

import numpy as np

from stages.core.vectors import F32, I64, fixed_point

_POOL = 512  # rows that are kept up to date: at 384 dimensions 0.8 MB, in reach of a core's cache


def k_center(vectors: F32, n: int, *, n_pool: int = _POOL) -> I64:
    """Order the first n rows, each the farthest from those before it.

    Args:
        vectors: fixed-point, shape (n_rows, n_dimensions).
        n: rows to draw, at most n_rows.
        n_pool: rows that are kept up to date; speed only.

    Returns:
        (n,) row numbers.
    """
    if not n:
        return np.zeros(0, dtype=np.int64)
    picks = [central(vectors)]
    nearest = np.asarray(vectors @ vectors[picks[0]])  # (n_rows,) similarity to the nearest of the first `known` picks
    nearest[picks[0]] = np.inf  # drawn
    known = np.ones(len(vectors), dtype=np.int64)
    while len(picks) < n:
        rows, bound = _lowest(nearest, n_pool)
        pool, values = vectors[rows], nearest[rows]
        unknown = vectors[picks[int(known[rows].min()) :]]
        if len(unknown):
            np.maximum(values, (pool @ unknown.T).max(axis=1), out=values)
        while len(picks) < n:
            at = int(values.argmin())
            if (float(values[at]), int(rows[at])) >= bound:  # a row outside may be as far
                break
            picks.append(int(rows[at]))
            np.maximum(values, pool @ pool[at], out=values)
            values[at] = np.inf
        nearest[rows], known[rows] = values, len(picks)
    return np.array(picks, dtype=np.int64)


def central(vectors: F32) -> int:
    """The row most like the mean of all, the earliest of several."""
    mean = fixed_point(vectors.sum(axis=0, keepdims=True, dtype=np.float64))
    return int((vectors @ mean[0]).argmax())


def _lowest(values: F32, n: int) -> tuple[I64, tuple[float, int]]:
    """The n lowest values, the earlier row first among equals.

    Returns:
        their rows, ascending, and (value, row) of the lowest that is left.
    """
    if len(values) <= n:
        return np.arange(len(values)), (np.inf, len(values))
    limit = np.partition(values, n)[n]
    below, equal = np.flatnonzero(values < limit), np.flatnonzero(values == limit)
    n_equal = n - len(below)
    return np.sort(np.concatenate([below, equal[:n_equal]])), (float(limit), int(equal[n_equal]))
