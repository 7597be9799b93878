from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.deita import score_first
from stages.core.vectors import F32, ONE, fixed_point


def on_circle(*degrees: float) -> F32:
    angles = np.radians(degrees)
    return fixed_point(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def plain(vectors: F32, order: list[int], n: int, max_cosine: float) -> list[int]:
    taken: list[int] = []
    for row in order:
        if len(taken) < n and all(float(vectors[row] @ vectors[other]) < max_cosine * ONE for other in taken):
            taken.append(row)
    return taken


def test_rows_are_compared_with_those_taken_and_not_with_those_passed_over() -> None:
    rows = on_circle(0, 20, 40, 60)  # cos 20 = .94, cos 40 = .77
    assert score_first(rows, np.arange(4), 4, max_cosine=0.9).tolist() == [0, 2]
    # 20 degrees is passed over for 0, so 40 is taken although it is near 20
    assert score_first(rows, np.array([1, 0, 2, 3]), 4, max_cosine=0.9).tolist() == [1, 3]


def test_it_stops_with_the_last_row_wanted_and_may_give_fewer() -> None:
    rows = on_circle(0, 90, 180, 1)
    assert score_first(rows, np.array([3, 2, 1, 0]), 2, max_cosine=0.9).tolist() == [3, 2]
    assert score_first(rows, np.array([3, 2, 1, 0]), 9, max_cosine=0.9).tolist() == [3, 2, 1]
    assert score_first(rows, np.array([], dtype=np.int64), 3, max_cosine=0.9).tolist() == []
    assert score_first(rows, np.arange(4), 0, max_cosine=0.9).tolist() == []


def test_the_threshold_is_exclusive() -> None:
    rows = fixed_point(np.array([[1.0, 0], [0, 1]]))  # similarity 0
    assert score_first(rows, np.arange(2), 2, max_cosine=1e-9).tolist() == [0, 1]
    assert score_first(
        np.array([[4000.0, 0], [3000, 0]], np.float32), np.arange(2), 2, max_cosine=12e6 / ONE
    ).tolist() == [0]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 700), st.floats(0.05, 0.99), st.integers(0, 2**32 - 1))
def test_blocks_do_not_change_what_is_taken(n_rows: int, max_cosine: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = fixed_point(
        rng.standard_normal((20, 6))[rng.integers(0, 20, n_rows)] + 0.3 * rng.standard_normal((n_rows, 6))
    )
    order = rng.permutation(n_rows)
    n = int(rng.integers(1, n_rows + 1))
    assert score_first(rows, order, n, max_cosine=max_cosine).tolist() == plain(rows, order.tolist(), n, max_cosine)
