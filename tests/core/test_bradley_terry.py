import choix
import numpy as np
import pytest

from stages.core.bradley_terry import strengths


def table(n, *, seed):
    return np.random.default_rng(seed).integers(1, 30, size=(n, n)) * (1.0 - np.eye(n))


def test_two_contestants_stand_as_the_odds_between_them():
    found = strengths(np.array([[0.0, 8.0], [2.0, 0.0]]), prior_ties=0)
    assert found == pytest.approx([np.log(4) / 2, -np.log(4) / 2])


def test_the_prior_is_a_tie():
    found = strengths(np.array([[0.0, 8.0], [2.0, 0.0]]), prior_ties=1)
    assert found[0] - found[1] == pytest.approx(np.log(8.5 / 2.5))


@pytest.mark.parametrize("n", [2, 3, 6])
def test_strengths_are_those_of_choix(n):
    wins = table(n, seed=n)
    games = [(i, j) for i in range(n) for j in range(n) for _ in range(int(wins[i, j]))]
    expected = choix.opt_pairwise(n, games, tol=1e-12)
    assert np.abs(strengths(wins, prior_ties=0) - (expected - expected.mean())).max() < 1e-5


def test_expected_wins_are_the_wins():
    """What the most likely strengths are defined by: the gradient is nought."""
    wins = table(5, seed=0)
    found = strengths(wins, prior_ties=0)
    chance = 1 / (1 + np.exp(found[None, :] - found[:, None]))
    assert ((wins + wins.T) * chance * (1 - np.eye(5))).sum(1) == pytest.approx(wins.sum(1), rel=1e-6)


def test_tables_together_are_as_tables_alone():
    both = np.stack([table(4, seed=1), table(4, seed=2)])
    assert strengths(both) == pytest.approx(np.stack([strengths(both[0]), strengths(both[1])]), abs=1e-8)


def test_who_always_wins_is_strong_but_finite():
    found = strengths(np.array([[0.0, 50, 50], [0, 0, 25], [0, 25, 0]]))
    assert np.isfinite(found).all()
    assert found[0] > 2
    assert found[1] == pytest.approx(found[2])


def test_without_games_all_are_equal():
    assert strengths(np.zeros((3, 3))).tolist() == [0, 0, 0]
