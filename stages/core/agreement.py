"""agreement: how far two annotators agree on the same pairs.

Preferences are numbers: 1 for the one side, 0 for the other, 1/2 for neither. The tie-discounted accuracy of s4.3 (1
if they agree, 1/2 if just one says tie, else 0) is then 1 - |x - y|, and the same corrected for chance is Cohen's
kappa with linear weights over 0 < 1/2 < 1. Accuracy alone flatters an annotator who always says tie; so both tie rates
stand beside.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVELS = np.array([0.0, 0.5, 1.0])


def tie_discounted(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Agreement of each pair (n,): 1, 1/2 or 0.

    >>> tie_discounted([1, 1, 1], [1, 0.5, 0]).tolist()
    [1.0, 0.5, 0.0]
    """
    return 1 - np.abs(_levels(x) - _levels(y))


def cohen_kappa(x: npt.ArrayLike, y: npt.ArrayLike, *, weights: Literal["linear", "nominal"]) -> float | None:
    """1 - observed disagreement / disagreement expected of independent annotators with the same habits.

    None where that is 0, both always saying one and the same thing, and where there are no pairs. Cohen 1960, 1968.
    """
    first, second = _levels(x), _levels(y)
    if first.size == 0:
        return None
    apart = np.abs(LEVELS[:, None] - LEVELS)  # (3, 3)
    if weights == "nominal":
        apart = np.sign(apart)
    observed = apart[np.searchsorted(LEVELS, first), np.searchsorted(LEVELS, second)].mean()
    expected = _shares(first) @ apart @ _shares(second)
    return float(1 - observed / expected) if expected > 0 else None


def _shares(values: Floats) -> Floats:
    return np.asarray((values[:, None] == LEVELS).mean(axis=0))  # (3,)


def _levels(values: npt.ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    assert np.isin(x, LEVELS).all(), "a preference is 0, 1/2 or 1"
    return x
