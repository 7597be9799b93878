"""deita: take rows in order of their score, if they are far enough from those taken.

Liu et al. 2024, DEITA (arXiv:2312.15685, s3.3, "score-first, diversity-aware"): a row is taken if its cosine to the
nearest row *taken so far* is below a threshold, 0.9 there; rows that were passed over play no part.
Cost: rows looked at x rows taken x dimensions; it stops with the last row wanted.
"""

import numpy as np

from stages.core.vectors import F32, I64, ONE

_BLOCK = 256  # rows that are compared with those taken together


def score_first(vectors: F32, order: I64, n: int, *, max_cosine: float) -> I64:
    """Take the first n rows that are far enough from those taken before.

    Args:
        vectors: fixed-point, shape (n_rows, n_dimensions).
        order: row numbers, best first.
        n: rows to take.
        max_cosine: to every row taken, exclusive.

    Returns:
        (at most n,) row numbers, in the order taken.
    """
    limit = max_cosine * ONE
    taken = np.zeros((min(n, len(order)), vectors.shape[1]), dtype=np.float32)
    picks: list[int] = []
    for start in range(0, len(order), _BLOCK):
        if len(picks) == n:
            break
        rows = order[start : start + _BLOCK]
        block = vectors[rows]
        far = (block @ taken[: len(picks)].T).max(axis=1, initial=-np.inf) < limit
        within = block @ block.T
        accepted: list[int] = []
        for place in np.flatnonzero(far):
            if len(picks) < n and not (within[place, accepted] >= limit).any():
                accepted.append(int(place))
                taken[len(picks)] = block[place]
                picks.append(int(rows[place]))
    return np.array(picks, dtype=np.int64)
