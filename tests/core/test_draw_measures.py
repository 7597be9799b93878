from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from stages.core import draw_measures
from stages.core.draw_measures import coverages, measure_draws, spans, spread
from stages.core.vectors import F32, fixed_point

ROWS = np.arange


def on_circle(*degrees: float) -> F32:
    angles = np.radians(degrees)
    return fixed_point(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_coverage_and_spread_by_hand() -> None:
    rows = on_circle(0, 60, 90)
    found = coverages(rows, ROWS(3), [np.array([0]), np.array([0, 2]), ROWS(3)])
    assert found.tolist() == pytest.approx([(1 + 0.5 + 0) / 3, (1 + 0.866 + 1) / 3, 1], abs=1e-3)
    # nearest others: 0 -> 60 (.5), 60 -> 90 (.866), 90 -> 60 (.866)
    assert spread(rows, n_rows=9) == pytest.approx(1 - (0.5 + 0.866 + 0.866) / 3, abs=1e-3)
    assert spread(rows, n_rows=2) == pytest.approx(1 - (0.5 + 0.866) / 2, abs=1e-3)  # rows 0 and 2


def test_duplicates_have_no_spread() -> None:
    assert spread(on_circle(30, 30), n_rows=5) == pytest.approx(0, abs=1e-3)


def test_blocks_do_not_change_the_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = fixed_point(np.random.default_rng(0).standard_normal((50, 6)))
    draws = [np.arange(0, 50, 3), np.arange(5)]
    first = coverages(rows, ROWS(50), draws), spread(rows, n_rows=50)
    monkeypatch.setattr(draw_measures, "_BLOCK", 7)
    second = coverages(rows, ROWS(50), draws), spread(rows, n_rows=50)
    assert (first[0] == second[0]).all()
    assert first[1] == second[1]


def test_coverage_against_the_slow_way() -> None:
    rows = fixed_point(np.random.default_rng(1).standard_normal((40, 5)))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    measured, draw = np.array([1, 4, 30]), np.array([0, 7, 30])
    slow = np.mean([max(float(unit[row] @ unit[other]) for other in draw) for row in measured])
    assert coverages(rows, measured, [draw])[0] == pytest.approx(slow, abs=1e-3)


def test_a_draw_of_one_row_has_no_spread_to_tell() -> None:
    rows, domains, chars = on_circle(0, 90), pl.Series(["a", "b"]), pl.Series([5, 7])
    one, both = measure_draws(rows, ROWS(2), [np.array([1]), ROWS(2)], domains=domains, chars=chars, n_rows=9)
    assert "spread" not in one
    assert one["domain_entropy_bits"] == 0
    assert (both["spread"], both["domain_entropy_bits"]) == (pytest.approx(1), 1)


def test_spans_by_hand() -> None:
    assert spans([{"a": 1.0, "b": {"p": 4.0}}, {"a": 3.0, "b": {"p": 2.0}}]) == {
        "a": {"mean": 2.0, "min": 1.0, "max": 3.0},
        "b": {"p": {"mean": 3.0, "min": 2.0, "max": 4.0}},
    }
