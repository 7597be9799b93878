"""The lean to the answer shown first, by hand, and its test against scipy."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from stages.core.intervals import Intervals
from stages.core.position import position_bias, sign_test
from stages.schema import VERDICT

INTERVALS = Intervals(seed=0, n_bootstrap=500, confidence=0.95)


def verdicts(*both: tuple[str | None, str | None]) -> pl.DataFrame:
    """A prompt a pair of preferences: shown `a` first, then `b` first."""
    rows = [
        (f"p{i}", 0, "x", "y", "j", order, said, None if said else "empty", *[None] * (len(VERDICT) - 8))
        for i, pair in enumerate(both)
        for order, said in zip(("ab", "ba"), pair, strict=True)
    ]
    return pl.DataFrame(rows, schema=VERDICT, orient="row")


def test_the_lean_is_worked_out_by_hand() -> None:
    # the first twice; the second twice; the first and a tie; the same twice; one order failed
    lean = position_bias(verdicts(("a", "b"), ("b", "a"), ("a", "tie"), ("a", "a"), ("a", None)), INTERVALS)
    assert lean is not None
    assert (lean.bias.n, lean.bias.value) == (4, (1 - 1 + 0.5 + 0) / 4)
    assert (lean.n_first, lean.n_second, lean.p_value) == (2, 1, 1.0)


def test_a_judge_that_always_takes_the_first_is_found_out() -> None:
    lean = position_bias(verdicts(*[("a", "b")] * 12), INTERVALS)
    assert lean is not None
    assert (lean.bias.value, lean.n_first, lean.n_second) == (1, 12, 0)
    assert lean.p_value == pytest.approx(2 / 2**12)


def test_who_sees_pairs_once_has_no_lean() -> None:
    once = verdicts(("a", "b")).filter(pl.col("order") == "ab")
    assert position_bias(once, INTERVALS) is None


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_sign_test_is_scipys(n_up: int, n_down: int) -> None:
    expected = binomtest(n_up, n_up + n_down).pvalue if n_up + n_down else 1.0
    assert sign_test(n_up, n_down) == pytest.approx(expected)
