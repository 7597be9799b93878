from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.k_center import central, k_center
from stages.core.vectors import F32, fixed_point


def plain(vectors: F32, n: int) -> list[int]:
    """Every similarity at every draw; the earliest of equals."""
    picks = [central(vectors)][:n]
    while len(picks) < n:
        nearest = (vectors.astype(np.int64) @ vectors[picks].astype(np.int64).T).max(axis=1)
        picks.append(min(set(range(len(vectors))) - set(picks), key=lambda row: (nearest[row], row)))
    return picks


def on_circle(*degrees: float) -> F32:
    angles = np.radians(degrees)
    return fixed_point(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_farthest_first_by_hand() -> None:
    rows = on_circle(0, 25, 180, 90, 100)
    # the mean points to about 77 degrees, so 90 is first; 180 and 0 are 90 from it, then 25 is 25 and 100 is 10
    assert k_center(rows, 5).tolist() == [3, 0, 2, 1, 4]


def test_of_equally_far_rows_the_earliest_comes() -> None:
    assert k_center(on_circle(90, 180, 0, 180, 0), 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    assert k_center(on_circle(0, 90), n).tolist() == [0][:n]


def test_duplicates_are_drawn_last_and_once_each() -> None:
    assert k_center(on_circle(0, 0, 0, 90, 0), 5).tolist()[:2] == [0, 3]
    assert sorted(k_center(on_circle(0, 0, 0, 90, 0), 5).tolist()) == [0, 1, 2, 3, 4]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 70), st.integers(0, 2**32 - 1), st.booleans())
def test_picks_are_those_of_the_plain_algorithm(
    n_rows: int, n_dimensions: int, n_pool: int, seed: int, has_ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(-2, 3, (n_rows, n_dimensions)) if has_ties else rng.standard_normal((n_rows, n_dimensions))
    rows = fixed_point(raw.astype(np.float64))
    n = int(rng.integers(1, n_rows + 1))
    assert k_center(rows, n, n_pool=n_pool).tolist() == plain(rows, n)


def test_picks_of_clusters_are_those_of_the_plain_algorithm() -> None:
    rng = np.random.default_rng(0)
    rows = fixed_point(rng.standard_normal((40, 32))[rng.integers(0, 40, 1500)] + rng.standard_normal((1500, 32)))
    assert k_center(rows, 200, n_pool=64).tolist() == plain(rows, 200)


def test_fewer_picks_are_a_prefix_of_more() -> None:
    rows = fixed_point(np.random.default_rng(1).standard_normal((300, 8)))
    assert k_center(rows, 50, n_pool=16).tolist()[:20] == k_center(rows, 20, n_pool=16).tolist()
