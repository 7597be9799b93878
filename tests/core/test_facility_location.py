from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core import facility_location as module
from stages.core.facility_location import facility_location, limit_of
from stages.core.vectors import F32, I64, ONE, fixed_point


def plain(vectors: F32, n: int, represented: I64 | None = None) -> list[int]:
    """Every row's gain at every draw; the earliest of equals."""
    targets = vectors if represented is None else vectors[represented]
    similar = (vectors.astype(np.int64) @ targets.astype(np.int64).T).astype(np.float64)
    nearest = np.full(len(targets), limit_of(vectors, targets))
    picks: list[int] = []
    while len(picks) < n:
        gains = np.maximum(similar - nearest, 0).sum(axis=1)
        picks.append(min(set(range(len(vectors))) - set(picks), key=lambda row: (-gains[row], row)))
        nearest = np.maximum(nearest, similar[picks[-1]])
    return picks


def clustered(n_rows: int, *, seed: int) -> F32:
    rng = np.random.default_rng(seed)
    return fixed_point(
        rng.standard_normal((12, 16))[rng.integers(0, 12, n_rows)] + 0.5 * rng.standard_normal((n_rows, 16))
    )


def test_the_middle_of_the_largest_cluster_comes_first_by_hand() -> None:
    angles = np.radians([0, 5, 10, 120, 122, 240])
    rows = fixed_point(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert facility_location(rows, 3).tolist()[0] == 1  # 0, 5 and 10 degrees: it is the nearest to all three
    assert set(facility_location(rows, 3).tolist()) in ({1, 3, 5}, {1, 4, 5})


def test_duplicates_add_nothing_and_come_last_by_row() -> None:
    rows = fixed_point(np.array([[1.0, 0], [1, 0], [0, 1], [0, 1], [1, 0]]))
    assert facility_location(rows, 5).tolist() == [0, 2, 1, 3, 4]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_any_number_can_be_drawn(n: int) -> None:
    assert len(set(facility_location(clustered(5, seed=0), n).tolist())) == n


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_lazy_picks_are_those_of_the_plain_greedy(n_rows: int, n_dimensions: int, seed: int, has_ties: bool) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(-2, 3, (n_rows, n_dimensions)) if has_ties else rng.standard_normal((n_rows, n_dimensions))
    rows = fixed_point(raw.astype(np.float64))
    n = int(rng.integers(1, n_rows + 1))
    assert facility_location(rows, n).tolist() == plain(rows, n)


@pytest.mark.parametrize(("block", "batch", "front"), [(7, 1, 1), (32, 3, 5), (64, 8, 40)])
def test_blocks_do_not_change_the_picks(block: int, batch: int, front: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(150, seed=1)
    expected = plain(rows, 60)
    for name, value in (("_BLOCK", block), ("_BATCH", batch), ("_FRONT", front)):
        monkeypatch.setattr(module, name, value)
    assert facility_location(rows, 60).tolist() == expected


def test_some_rows_may_be_represented_alone() -> None:
    rows, represented = clustered(200, seed=2), np.arange(0, 200, 3)
    assert facility_location(rows, 40, represented=represented).tolist() == plain(rows, 40, represented)


@pytest.fixture
def few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 9000)
    monkeypatch.setattr(module, "_KEPT_EACH", 15)


@pytest.mark.usefixtures("few_kept")
def test_only_the_most_alike_pairs_are_kept() -> None:
    rows = clustered(600, seed=3)
    share = float((rows @ rows.T > limit_of(rows, rows)).mean())
    assert share == pytest.approx(9000 / 600**2, abs=0.005)
    assert facility_location(rows, 100).tolist() == plain(rows, 100)
    assert limit_of(rows[:90], rows[:90]) == 0


@pytest.mark.usefixtures("few_kept")
def test_kept_pairs_represent_as_well_as_all_do() -> None:
    rows = clustered(600, seed=4)
    similar = rows @ rows.T / ONE
    limited = similar[:, facility_location(rows, 200)].max(axis=1).mean()
    module._KEPT = 600**2
    assert limited > 0.995 * similar[:, facility_location(rows, 200)].max(axis=1).mean()
