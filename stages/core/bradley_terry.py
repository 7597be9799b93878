"""bradley_terry: strengths of contestants from who was preferred to whom.

Bradley and Terry 1952: i is preferred to j with probability p_i / (p_i + p_j). Strengths are log p, with mean 0. The
most likely ones are found by the minorisation of Hunter 2004 (Annals of Statistics 32:384-406), eq. 3. A tie counts
half for each. One tie more between any two keeps strengths finite where someone always wins; the prior is ours.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PRIOR_TIES = 1.0  # between any two contestants
_TOLERANCE = 1e-10
_MAX_ROUNDS = 10_000


def strengths(wins: npt.NDArray[Any], *, prior_ties: float = PRIOR_TIES) -> Floats:
    """Strengths in nats (log-odds), of one table of wins or of several at once.

    Args:
        wins: shape (..., n, n); [i, j] is how often i was preferred to j, a tie counting 1/2 in both directions.
        prior_ties: ties that are added between any two.

    Returns:
        shape (..., n), each with mean 0.

    >>> strengths(np.array([[0, 3.0], [1.0, 0]]), prior_ties=0).round(4)
    array([ 0.5493, -0.5493])
    """
    apart = 1.0 - np.eye(wins.shape[-1])
    counted = (wins + prior_ties / 2) * apart
    games = counted + counted.swapaxes(-1, -2)
    won = counted.sum(-1)
    p = np.ones_like(won)
    for _ in range(_MAX_ROUNDS):
        before = p
        p = won / (games / (p[..., :, None] + p[..., None, :])).sum(-1)
        p = p / np.exp(np.log(p).mean(-1, keepdims=True))
        if np.abs(np.log(p) - np.log(before)).max() < _TOLERANCE:
            break
    found: Floats = np.log(p)
    return found
