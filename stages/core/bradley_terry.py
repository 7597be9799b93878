"""bradley_terry: one strength for each of several systems, from pairwise preferences.

P(i over j) = 1 / (1 + exp(s_j - s_i)); a tie is half a win to either side (Bradley & Terry 1952; ties as in Zheng et
al., arXiv:2306.05685). Strengths are log-odds of being preferred to the anchor, whose own is 0. One imagined tie for
every two systems that were compared keeps the strength of one that always wins finite (ours). Standard errors are
those of the sandwich over prompts, or of the likelihood's curvature where that is larger: after a clean sweep nothing
varies, which is no certainty.

Fitted here and not by choix or statsmodels, whose import alone takes longer than the whole stage; the tests hold it
against choix.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TIE = 1.0  # imagined ties for every two systems that were compared


class Comparison(NamedTuple):
    """How far `a` was preferred to `b` on a prompt: 1, 0, or anything between."""

    prompt: str
    a: str
    b: str
    value: float


class Strength(NamedTuple):
    """One system's log-odds against the anchor."""

    system: str
    n: int  # comparisons that it took part in
    value: float
    low: float
    high: float


def strengths(comparisons: Sequence[Comparison], *, anchor: str, confidence: float) -> list[Strength]:
    """Every system that is connected with the anchor by comparisons, the strongest first."""
    names = _connected(comparisons, anchor)
    at = {name: place for place, name in enumerate(names)}
    known = [one for one in comparisons if one.a in at and one.b in at]
    if not known:
        return []
    i, j = (np.array([at[getattr(one, side)] for one in known]) for side in "ab")
    value = np.array([one.value for one in known])
    wins = np.zeros((len(names), len(names)))
    np.add.at(wins, (i, j), value)
    np.add.at(wins, (j, i), 1 - value)
    fitted = fit(wins + _TIE / 2 * ((wins + wins.T) > 0))
    _, prompt = np.unique([one.prompt for one in known], return_inverse=True)
    errors = _errors(fitted, wins, i, j, value, prompt)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    n = np.bincount(np.concatenate([i, j]), minlength=len(names))
    found = [
        Strength(name, int(n[k]), float(fitted[k]), float(fitted[k] - z * errors[k]), float(fitted[k] + z * errors[k]))
        for k, name in enumerate(names)
    ]
    return sorted(found, key=lambda one: (-one.value, one.system))


def round_robin(wins: Floats, *, ties: float = _TIE) -> Floats:
    """Strengths (..., m), with mean 0, of contestants who all meet.

    Args:
        wins: (..., m, m) how often the row was preferred to the column, a tie half in both directions; any number of
            tables at once.
        ties: imagined ties for every two.

    >>> round_robin(np.array([[0, 3.0], [1.0, 0]]), ties=0).round(4)
    array([ 0.5493, -0.5493])
    """
    found = fit(wins + ties / 2 * (1.0 - np.eye(wins.shape[-1])))
    return np.asarray(found - found.mean(axis=-1, keepdims=True))


def fit(wins: Floats) -> Floats:
    """Maximum likelihood strengths (..., m), the first 0.

    Args:
        wins: (..., m, m) how often the row was preferred to the column; every two are connected and nobody wins all.
    """
    total = wins + np.swapaxes(wins, -2, -1)
    found = np.zeros(wins.shape[:-1])
    for _ in range(100):
        gradient, curvature = _derivatives(found, wins, total)
        step = np.linalg.solve(curvature[..., 1:, 1:], gradient[..., 1:, None])[..., 0]
        found[..., 1:] += step / np.maximum(
            1.0, np.abs(step).max(axis=-1, keepdims=True, initial=0.0)
        )  # first steps are far
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    return found


def _derivatives(strength: Floats, wins: Floats, total: Floats) -> tuple[Floats, Floats]:
    """Gradient (..., m) and minus the Hessian (..., m, m) of the log-likelihood."""
    chance = _chance(strength[..., :, None] - strength[..., None, :])  # (..., m, m)
    spread = total * chance * (1 - chance)
    here = np.eye(strength.shape[-1])
    return (wins - total * chance).sum(axis=-1), here * spread.sum(axis=-1, keepdims=True) - spread


def _errors(
    strength: Floats,
    wins: Floats,
    i: npt.NDArray[np.intp],
    j: npt.NDArray[np.intp],
    value: Floats,
    prompt: npt.NDArray[np.intp],
) -> Floats:
    """Standard errors (m,), the anchor's 0."""
    total = wins + wins.T
    _, curvature = _derivatives(strength, wins, total + _TIE * (total > 0))
    inverse = np.linalg.inv(curvature[1:, 1:])
    residual = value - _chance(strength[i] - strength[j])
    scores = np.zeros((int(prompt.max()) + 1, len(strength)))
    np.add.at(scores, (prompt, i), residual)
    np.add.at(scores, (prompt, j), -residual)
    n = len(scores)
    sandwich = inverse @ (scores[:, 1:].T @ scores[:, 1:]) @ inverse * (n / max(1, n - 1))
    variance = np.maximum(np.diag(sandwich), np.diag(inverse))
    return np.concatenate([[0.0], np.sqrt(variance)])


def _chance(log_odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


def _connected(comparisons: Sequence[Comparison], anchor: str) -> list[str]:
    """The anchor, and by name all that a chain of comparisons leads to from it."""
    beside: dict[str, set[str]] = {}
    for one in comparisons:
        beside.setdefault(one.a, set()).add(one.b)
        beside.setdefault(one.b, set()).add(one.a)
    found, new = {anchor}, {anchor}
    while new:
        new = set().union(*(beside.get(name, set()) for name in new)) - found
        found |= new
    return [anchor, *sorted(found - {anchor})]
