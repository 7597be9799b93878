"""Bradley-Terry against choix, by hand, and where one side always wins."""

import math

import choix
import numpy as np
import pytest

from stages.core.bradley_terry import Comparison, fit, strengths


def games(a: str, b: str, *values: float, start: int = 0) -> list[Comparison]:
    return [Comparison(f"p{start + i}", a, b, value) for i, value in enumerate(values)]


def test_strengths_are_choixs() -> None:
    rng = np.random.default_rng(3)
    wins = rng.integers(1, 30, size=(5, 5)) * (1 - np.eye(5)) + 0.5 * (1 - np.eye(5))
    theirs = choix.opt_pairwise(5, [(i, j) for i in range(5) for j in range(5) for _ in range(int(2 * wins[i, j]))])
    assert fit(wins) == pytest.approx(theirs - theirs[0], abs=1e-4)


def test_two_systems_have_the_log_odds_of_the_rate_with_one_imagined_tie() -> None:
    anchor, other = strengths(games("x", "y", 1, 1, 0.5, 0, 1), anchor="x", confidence=0.95)
    assert (anchor.system, anchor.n, anchor.value, anchor.low, anchor.high) == ("x", 5, 0, 0, 0)
    assert other.value == pytest.approx(math.log((1.5 + 0.5) / (3.5 + 0.5)))
    assert other.low < other.value < other.high


def test_the_interval_of_independent_prompts_is_that_of_a_logistic_regression() -> None:
    _, other = strengths(games("x", "y", *([1] * 60 + [0] * 40)), anchor="x", confidence=0.95)
    assert other.high - other.low == pytest.approx(2 * 1.96 / math.sqrt(100 * 0.6 * 0.4), rel=0.02)


def test_samples_of_one_prompt_count_as_one() -> None:
    values = [1] * 30 + [0] * 20
    once = strengths(games("x", "y", *values), anchor="x", confidence=0.95)[1]
    thrice = strengths(games("x", "y", *values) * 3, anchor="x", confidence=0.95)[1]
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.05)


def test_a_clean_sweep_is_finite_and_not_certain() -> None:
    _, other = strengths(games("x", "y", *[1] * 20), anchor="x", confidence=0.95)
    assert other.value == pytest.approx(math.log(0.5 / 20.5))
    assert other.low < other.value - 1
    assert other.high > other.value + 1


def test_systems_are_ranked_and_those_out_of_reach_left_out() -> None:
    given = games("x", "y", 1, 1, 0) + games("y", "z", 1, 1, 0) + games("far", "away", 1, 0)
    assert [one.system for one in strengths(given, anchor="x", confidence=0.95)] == ["x", "y", "z"]
    assert strengths(games("far", "away", 1), anchor="x", confidence=0.95) == []
