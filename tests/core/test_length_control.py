"""A rate at equal lengths: by hand, against sklearn, and what it must not do."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stages.core.length_control import length_controlled

N = 400


def drawn(*, quality: float, slope: float, longer: float) -> tuple[np.ndarray, np.ndarray]:
    """Preferences of a judge with a taste for length, and differences in characters."""
    rng = np.random.default_rng(5)
    apart = rng.normal(longer, 300, size=N)
    log_odds = quality + slope * np.tanh(apart / apart.std(ddof=1))
    return (rng.random(N) < 1 / (1 + np.exp(-log_odds))).astype(float), apart


def test_it_is_sklearns_penalised_regression() -> None:
    values, apart = drawn(quality=0.3, slope=1.0, longer=200)
    x = np.tanh(apart / apart.std(ddof=1))[:, None]
    tie = np.zeros((2, 1))  # the imagined one: half a win and half a loss
    theirs = LogisticRegression(C=60 / N, tol=1e-10, max_iter=1000).fit(
        np.concatenate([x, tie]), np.append(values, [1, 0]), sample_weight=[*[1.0] * N, 0.5, 0.5]
    )
    found = length_controlled(values, apart, range(N), confidence=0.95)
    assert found is not None
    assert found.slope == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
    assert found.rate == pytest.approx(theirs.predict_proba([[0.0]])[0, 1], abs=1e-4)


def test_a_taste_for_length_is_taken_out_and_quality_is_left() -> None:
    values, apart = drawn(quality=0.0, slope=2.0, longer=300)
    found = length_controlled(values, apart, range(N), confidence=0.95)
    assert found is not None
    assert values.mean() > 0.65
    assert abs(found.rate - 0.5) < (values.mean() - 0.5) / 2
    values, apart = drawn(quality=1.0, slope=0.0, longer=300)
    found = length_controlled(values, apart, range(N), confidence=0.95)
    assert found is not None
    assert found.rate == pytest.approx(values.mean(), abs=0.06)
    assert found.low < found.rate < found.high


def test_both_sides_are_treated_alike() -> None:
    values, apart = drawn(quality=0.4, slope=1.0, longer=100)
    one = length_controlled(values, apart, range(N), confidence=0.95)
    other = length_controlled(1 - values, -apart, range(N), confidence=0.95)
    assert one is not None
    assert other is not None
    assert (one.rate, one.low) == (pytest.approx(1 - other.rate), pytest.approx(1 - other.high))


def test_samples_of_one_prompt_count_as_one() -> None:
    values, apart = drawn(quality=0.4, slope=1.0, longer=100)
    once = length_controlled(values, apart, range(N), confidence=0.95)
    thrice = length_controlled(np.tile(values, 3), np.tile(apart, 3), [*range(N)] * 3, confidence=0.95)
    assert once is not None
    assert thrice is not None
    # the larger of two errors is taken, and the likelihood's alone shrinks with more samples; as 3 N prompts: 0.58
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.02)


def test_a_clean_sweep_and_equal_lengths_are_no_accident() -> None:
    found = length_controlled([1.0] * 10, [-5, 5] * 5, range(10), confidence=0.95)
    assert found is not None
    assert found.rate == pytest.approx(21 / 22)  # ten wins and a tie
    assert found.low < 0.75
    assert 0.99 < found.high < 1
    assert length_controlled([1.0, 0.0], [5, 5], ["p", "q"], confidence=0.95) is None
    assert length_controlled([1.0, 0.0], [5, 6], ["p", "p"], confidence=0.95) is None


def test_the_interval_without_a_taste_for_length_is_that_of_a_rate() -> None:
    values, apart = drawn(quality=0.4, slope=0.0, longer=0)
    found = length_controlled(values, apart, range(N), confidence=0.95)
    assert found is not None
    rate = values.mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(rate * (1 - rate) / N), rel=0.02)
