"""Bradley-Terry against choix, by hand, and where one side always wins."""

import math

import choix
import numpy as np
import pytest

from stages.core.bradley_terry import Comparison, fit, round_robin, strengths


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


# --- round robins


def table(n, *, seed):
    return np.random.default_rng(seed).integers(1, 30, size=(n, n)) * (1.0 - np.eye(n))


def test_two_contestants_stand_as_the_odds_between_them():
    found = round_robin(np.array([[0.0, 8.0], [2.0, 0.0]]), ties=0)
    assert found == pytest.approx([np.log(4) / 2, -np.log(4) / 2])


def test_the_prior_is_a_tie():
    found = round_robin(np.array([[0.0, 8.0], [2.0, 0.0]]), ties=1)
    assert found[0] - found[1] == pytest.approx(np.log(8.5 / 2.5))


@pytest.mark.parametrize("n", [2, 3, 6])
def test_strengths_are_those_of_choix(n):
    wins = table(n, seed=n)
    games = [(i, j) for i in range(n) for j in range(n) for _ in range(int(wins[i, j]))]
    expected = choix.opt_pairwise(n, games, tol=1e-12)
    assert np.abs(round_robin(wins, ties=0) - (expected - expected.mean())).max() < 1e-5


def test_expected_wins_are_the_wins():
    """What the most likely strengths are defined by: the gradient is nought."""
    wins = table(5, seed=0)
    found = round_robin(wins, ties=0)
    chance = 1 / (1 + np.exp(found[None, :] - found[:, None]))
    assert ((wins + wins.T) * chance * (1 - np.eye(5))).sum(1) == pytest.approx(wins.sum(1), rel=1e-6)


def test_tables_together_are_as_tables_alone():
    both = np.stack([table(4, seed=1), table(4, seed=2)])
    assert round_robin(both) == pytest.approx(np.stack([round_robin(both[0]), round_robin(both[1])]), abs=1e-8)


def test_who_always_wins_is_strong_but_finite():
    found = round_robin(np.array([[0.0, 50, 50], [0, 0, 25], [0, 25, 0]]))
    assert np.isfinite(found).all()
    assert found[0] > 2
    assert found[1] == pytest.approx(found[2])


def test_without_games_all_are_equal():
    assert round_robin(np.zeros((3, 3))).tolist() == [0, 0, 0]
