"""agreement: how far two annotators agree on the same pairs.

Preferences are numbers: 1 for the one side, 0 for the other, 1/2 for neither. The tie-discounted accuracy of s4.3 (1
if they agree, 1/2 if just one says tie, else 0) is then 1 - |x - y|, and the same corrected for chance is Cohen's
kappa with linear weights over 0 < 1/2 < 1. Accuracy alone flatters an annotator who always says tie; so both tie rates
stand beside, Krippendorff's alpha, and the two rates that other work publishes: `exact`, the same said, and `decided`,
the same side taken among pairs where both take one (Zheng et al., arXiv:2306.05685, Table 5, setups S1 and S2).

Everything follows from counts: a table (3, 3) of how often the one says x and the other y. So a resample of prompts is
a sum of tables, and functions here take any number of tables at once.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVELS = np.array([0.0, 0.5, 1.0])
APART: dict[str, Floats] = {
    "linear": np.abs(LEVELS[:, None] - LEVELS),  # (3, 3)
    "nominal": 1.0 - np.eye(3),
}


def tie_discounted(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Agreement of each pair (n,): 1, 1/2 or 0.

    >>> tie_discounted([1, 1, 1], [1, 0.5, 0]).tolist()
    [1.0, 0.5, 0.0]
    """
    return 1 - np.abs(_levels(x) - _levels(y))


def tables(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Each pair as a table (n, 3, 3) with one 1, at what x says and what y says."""
    first, second = (np.searchsorted(LEVELS, _levels(side)) for side in (x, y))
    found = np.zeros((first.size, 3, 3))
    found[np.arange(first.size), first, second] = 1
    return found


def kappa(counts: Floats, *, weights: Literal["linear", "nominal"] = "linear") -> Floats:
    """1 - observed disagreement / disagreement expected of independent annotators with the same habits.

    Cohen 1960, 1968. Of tables (..., 3, 3) gives (...); NaN where nothing else was to be expected, both always saying
    one and the same thing, and of an empty table.
    """
    apart = APART[weights]
    n = counts.sum(axis=(-2, -1))
    observed = (counts * apart).sum(axis=(-2, -1)) * n
    expected = np.einsum("...i,ij,...j->...", counts.sum(axis=-1), apart, counts.sum(axis=-2))
    return _one_minus(observed, expected)


def alpha(coincidences: Floats) -> Floats:
    """Krippendorff's alpha, nominal, of coincidences (..., 3, 3).

    1 - (n - 1) * coincidences off the diagonal / products of two different levels' totals (Krippendorff 2011); NaN
    where only one level occurs.
    """
    totals = coincidences.sum(axis=-1)  # (..., 3)
    n = totals.sum(axis=-1)
    off = (coincidences * APART["nominal"]).sum(axis=(-2, -1))
    expected = np.einsum("...i,ij,...j->...", totals, APART["nominal"], totals)
    return _one_minus((n - 1) * off, expected)


def fleiss_kappa(coincidences: Floats) -> Floats:
    """Alpha without its correction for few annotations, which is Fleiss' kappa where each item has as many of them."""
    totals = coincidences.sum(axis=-1)
    off = (coincidences * APART["nominal"]).sum(axis=(-2, -1))
    return _one_minus(totals.sum(axis=-1) * off, np.einsum("...i,ij,...j->...", totals, APART["nominal"], totals))


def coincidences(counts: Floats, *, n_annotators: npt.ArrayLike = 2) -> Floats:
    """Krippendorff's coincidences (..., 3, 3) of tables (..., 3, 3), which hold every two annotators of an item once.

    Args:
        counts: tables.
        n_annotators: (...) how many annotators the table's item has.
    """
    both = counts + np.swapaxes(counts, -2, -1)
    return np.asarray(both / (np.asarray(n_annotators, dtype=np.float64) - 1)[..., None, None])


def statistics(counts: Floats) -> dict[str, Floats]:
    """All measures of tables (..., 3, 3) by name, each (...); NaN where one does not exist."""
    n = counts.sum(axis=(-2, -1))
    same = np.trace(counts, axis1=-2, axis2=-1)
    corners = counts[..., ::2, ::2]
    return {
        "agreement": _share((counts * (1 - APART["linear"])).sum(axis=(-2, -1)), n),
        "kappa": kappa(counts),
        "alpha": alpha(coincidences(counts)),
        "exact": _share(same, n),
        "decided": _share(np.trace(corners, axis1=-2, axis2=-1), corners.sum(axis=(-2, -1))),
    }


def cohen_kappa(x: npt.ArrayLike, y: npt.ArrayLike, *, weights: Literal["linear", "nominal"]) -> float | None:
    """Kappa of two annotators' values (n,); None where it does not exist."""
    found = float(kappa(tables(x, y).sum(axis=0), weights=weights))
    return None if np.isnan(found) else found


def _share(part: Floats, whole: Floats) -> Floats:
    out = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=out, where=np.asarray(whole) > 0))


def _one_minus(observed: Floats, expected: Floats) -> Floats:
    return np.asarray(1 - _share(observed, expected))


def _levels(values: npt.ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    assert np.isin(x, LEVELS).all(), "a preference is 0, 1/2 or 1"
    return x
