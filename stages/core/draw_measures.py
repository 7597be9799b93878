"""draw_measures: what a draw covers and how alike its rows are, beside random draws of the same size.

Distances are 1 - cosine of the rows' vectors. *Coverage* is the mean, over rows of the pool, of the cosine to the
nearest drawn row: what facility location raises. *Spread* is the mean, over drawn rows, of the distance to the nearest
other one: what k-center raises and near-duplicates lower. Both are taken over at most `n_rows` rows, the same rows of
the pool for every draw. The random draws are of the whole pool, whatever the quotas: what the draw as a whole has done.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field

from stages.common.section import Section
from stages.core.quotas import entropy_bits
from stages.core.vectors import F32, F64, I64, ONE

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

_BLOCK = 256  # rows whose similarities to all others are held at a time


class Measures(Section):
    """How a draw is measured."""

    n_rows: int = Field(ge=1)  # rows that coverage and spread are averaged over, at most
    n_random_draws: int = Field(ge=0)  # of the same size, to compare with


def measure_draws(
    vectors: F32, measured: I64, draws: Sequence[I64], *, domains: pl.Series, chars: pl.Series, n_rows: int
) -> list[dict[str, Any]]:
    """Measure several draws of one pool.

    Args:
        vectors: fixed-point, shape (n_pool, n_dimensions); rows that are neither measured nor drawn are not looked at.
        measured: rows of the pool that coverage is averaged over.
        draws: row numbers of each draw, none empty, ascending.
        domains: of each row of the pool.
        chars: of each row's responses.
        n_rows: rows of a draw that spread is averaged over, at most, evenly spaced.
    """
    covered = coverages(vectors, measured, draws)
    return [
        {
            "domain_entropy_bits": entropy_bits(domains[rows].value_counts()["count"].sort().to_list()),
            "coverage": float(coverage),
            **({"spread": spread(vectors[rows], n_rows=n_rows)} if len(rows) > 1 else {}),
            "response_chars": quantiles(chars[rows]),
        }
        for rows, coverage in zip(draws, covered, strict=True)
    ]


def coverages(vectors: F32, measured: I64, draws: Sequence[I64]) -> F64:
    """Mean cosine of the measured rows to the nearest row of each draw, shape (n_draws,)."""
    drawn = np.unique(np.concatenate(draws))
    targets = vectors[drawn]
    places = [np.searchsorted(drawn, rows) for rows in draws]
    total = np.zeros(len(draws))
    for start in range(0, len(measured), _BLOCK):
        similar = vectors[measured[start : start + _BLOCK]] @ targets.T
        total += [similar[:, place].max(axis=1).sum(dtype=np.float64) for place in places]
    return total / len(measured) / ONE


def spread(vectors: F32, *, n_rows: int) -> float:
    """Mean distance of two or more rows, or of `n_rows` of them evenly spaced, to the nearest other."""
    chosen = np.arange(0, len(vectors), -(-len(vectors) // n_rows))
    total = 0.0
    for start in range(0, len(chosen), _BLOCK):
        rows = chosen[start : start + _BLOCK]
        similar = vectors[rows] @ vectors.T
        similar[np.arange(len(rows)), rows] = -np.inf
        total += float(similar.max(axis=1).sum(dtype=np.float64))
    return 1 - total / len(chosen) / ONE


def quantiles(values: pl.Series) -> dict[str, float]:
    """Values that a share of the rows lies at or below, by the nearest rank.

    >>> quantiles(pl.Series([10, 20, 30, 40]))
    {'p05': 10.0, 'p25': 10.0, 'p50': 20.0, 'p75': 30.0, 'p95': 40.0}
    """
    ranked = values.sort()
    return {f"p{round(100 * q):02}": float(ranked[max(0, int(np.ceil(q * len(ranked))) - 1)]) for q in QUANTILES}


def spans(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean, lowest and highest of each measure over some draws, one or more."""
    spanned: dict[str, Any] = {}
    for name, first in measured[0].items():
        found = [draw[name] for draw in measured]
        if isinstance(first, dict):
            spanned[name] = spans(found)
        else:
            spanned[name] = {"mean": float(np.mean(found)), "min": min(found), "max": max(found)}
    return spanned
