"""Intervals against hand-worked values, their definitions and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, norm, t

from stages.core.intervals import (
    Intervals,
    bonett_price,
    bootstrap_means,
    minimum_detectable,
    standard_error,
    student_t,
    wilson,
)

INTERVALS = Intervals(seed=0, n_bootstrap=2000, confidence=0.95)


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k / n, n=n, confidence=confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_holds_the_rates_that_a_score_test_does_not_reject() -> None:
    rate, n, z = 0.3, 40, norm.ppf(0.975)
    for end in wilson(rate, n=n, confidence=0.95):
        assert abs(rate - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(z)


def test_few_prompts_have_wilsons_interval_and_more_the_bootstraps() -> None:
    for n, is_wilson in ((50, True), (52, False)):
        values = [1.0] * (n // 2) + [0.0] * (n // 2)
        estimate = INTERVALS.estimate(values, range(n), scale=(0, 1))
        expected = wilson(0.5, n=n, confidence=0.95)
        assert (estimate[2:] == pytest.approx(expected, abs=1e-12)) is is_wilson
        assert estimate[:2] == (n, 0.5)


@pytest.mark.parametrize(("n_right", "is_wilson"), [(9, True), (10, False), (50, False), (90, False), (91, True)])
def test_an_extreme_rate_has_wilsons_interval(n_right: int, is_wilson: bool) -> None:
    values = np.arange(100) < n_right
    estimate = INTERVALS.estimate(values, range(100), scale=(0, 1))
    assert (estimate[2:] == pytest.approx(wilson(n_right / 100, n=100, confidence=0.95), abs=1e-12)) is is_wilson


@pytest.mark.parametrize("values", [[*[1.0] * 9, 0.5], [*[1.0] * 299, 0.5]])
def test_a_tie_among_few_or_extreme_values_makes_no_interval_shorter(values: list[float]) -> None:
    n = len(values)
    low = INTERVALS.estimate(values, range(n), scale=(0, 1)).low
    of_wins = INTERVALS.estimate([1.0] * n, range(n), scale=(0, 1)).low
    assert low is not None
    assert of_wins is not None
    assert low < of_wins


def test_few_prompts_are_few_however_many_their_answers() -> None:
    estimate = INTERVALS.estimate([1, 0, 0] * 40, np.repeat(np.arange(40), 3), scale=(0, 1))
    assert estimate[2:] == pytest.approx(wilson(1 / 3, n=40, confidence=0.95))


def test_a_mean_on_another_scale_is_no_rate() -> None:
    ones_and_zeros = [1, 0] * 10
    rate = INTERVALS.estimate(ones_and_zeros, range(20), scale=(0, 1))
    difference = INTERVALS.estimate(ones_and_zeros, range(20), scale=(-1, 1))
    assert rate[2:] != difference[2:]


def test_several_answers_to_one_prompt_are_not_independent() -> None:
    one_each = np.array([1, 0, 1, 1, 0, 0] * 20)
    again = INTERVALS.estimate(np.repeat(one_each, 5), np.repeat(np.arange(120), 5), scale=(0, 1))
    alone = INTERVALS.estimate(one_each, np.arange(120), scale=(0, 1))
    assert again[1:] == pytest.approx(alone[1:])
    assert (again.n, alone.n) == (600, 120)


def test_the_bootstrap_is_scipys_up_to_chance() -> None:
    values = np.random.default_rng(1).integers(1, 7, 200).astype(float)
    low, high = INTERVALS.estimate(values, range(200), scale=(1, 6))[2:]
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=9999, random_state=2).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_bootstrap_of_clusters_is_the_slow_one() -> None:
    sums, counts = np.array([3.0, 0.0, 2.0, 5.0]), np.array([3.0, 1.0, 4.0, 5.0])
    drawn = np.random.default_rng(5).integers(0, 4, size=(50, 4))
    slow = [sum(sums[i] for i in row) / sum(counts[i] for i in row) for row in drawn]
    assert bootstrap_means(sums, counts, n_bootstrap=50, rng=np.random.default_rng(5)).tolist() == pytest.approx(slow)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    quick = Intervals(seed=0, n_bootstrap=400, confidence=0.9)
    held = 0
    for _ in range(200):
        ability = rng.beta(2, 2, 80)
        answers = rng.binomial(1, np.repeat(ability, 3))
        _, _, low, high = quick.estimate(answers, np.repeat(np.arange(80), 3), scale=(0, 1))
        held += low <= 0.5 <= high
    assert 0.84 <= held / 200 <= 0.96


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30),
    st.integers(1, 5),
)
def test_the_mean_lies_in_its_interval_and_both_on_the_scale(values: list[int], n_per_prompt: int) -> None:
    few = Intervals(seed=0, n_bootstrap=100, confidence=0.95)
    n, mean, low, high = few.estimate(values, [i // n_per_prompt for i in range(len(values))], scale=(1, 6))
    assert (n, mean) == (len(values), pytest.approx(np.mean(values)))
    assert 1 - 1e-9 <= low <= high <= 6 + 1e-9


def test_nothing_has_no_estimate() -> None:
    assert INTERVALS.estimate([], [], scale=(0, 1)) == (0, None, None, None)


def test_equal_values_are_not_certain() -> None:
    n, mean, low, high = INTERVALS.estimate([1.0] * 100, range(100), scale=(-1, 1))
    others = 1 - wilson(1, n=100, confidence=0.95)[0]
    assert (n, mean, low, high) == (100, 1, pytest.approx(1 - 2 * others), 1)
    assert INTERVALS.estimate([0.0] * 100, range(100), scale=(-1, 1))[2:] == pytest.approx((-others, others))
    assert INTERVALS.estimate([6.0], [0], scale=(1, 6)).low < 3


def paired(n_up: int, n_down: int, *, n: int) -> list[float]:
    return [1.0] * n_up + [-1.0] * n_down + [0.0] * (n - n_up - n_down)


def test_few_discordant_pairs_have_the_interval_of_bonett_and_price() -> None:
    # 4 to 0 of 300: 5/302 and 1/302; d = 4/302, se = sqrt((6/302 - d^2) / 302) = .0080750, half = 1.96 se = .0158267
    estimate = INTERVALS.estimate(paired(4, 0, n=300), range(300), scale=(-1, 1))
    assert estimate == (
        300,
        pytest.approx(4 / 300),
        pytest.approx(-0.0025817, abs=1e-6),
        pytest.approx(0.0290717, abs=1e-6),
    )
    # 1 to 9 of 50: 2/52 and 10/52; d = -8/52, se = sqrt((12/52 - d^2) / 52) = .0631087, half = .1236908
    estimate = INTERVALS.estimate(paired(1, 9, n=50), range(50), scale=(-1, 1))
    assert estimate[1:] == pytest.approx((-0.16, -0.2775369, -0.0301554), abs=1e-6)
    swapped = INTERVALS.estimate(paired(9, 1, n=50), range(50), scale=(-1, 1))
    assert swapped[1:] == pytest.approx((0.16, 0.0301554, 0.2775369), abs=1e-6)


def test_discordant_pairs_are_few_below_twenty() -> None:
    for n_up, is_adjusted in ((12, True), (13, False)):
        x = paired(n_up, 7, n=400)
        low, high = INTERVALS.estimate(x, range(400), scale=(-1, 1))[2:]
        assert ((low, high) == pytest.approx(bonett_price(n_up, 7, n=400, confidence=0.95), abs=1e-12)) is is_adjusted


def test_differences_of_several_answers_or_of_other_values_are_resampled() -> None:
    expected = bonett_price(4, 0, n=300, confidence=0.95)
    several = INTERVALS.estimate(paired(4, 0, n=300), [i // 2 for i in range(300)], scale=(-1, 1))
    halves = INTERVALS.estimate([0.5, *paired(4, 0, n=299)], range(300), scale=(-1, 1))
    assert several[2:] != pytest.approx(expected, abs=1e-4)
    assert halves[2:] != pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6))
def test_a_paired_difference_lies_in_its_interval_and_both_on_the_scale(n_up: int, n_down: int, n_even: int) -> None:
    n = n_up + n_down + n_even
    _, mean, low, high = INTERVALS.estimate(paired(n_up, n_down, n=n), range(n), scale=(-1, 1))
    assert -1 <= low <= mean <= high <= 1


def test_one_more_measure_changes_no_other() -> None:
    values = np.random.default_rng(0).random(100)
    first = INTERVALS.estimate(values, range(100), scale=(0, 1))
    INTERVALS.estimate(values[::-1], range(100), scale=(0, 1))
    assert INTERVALS.estimate(values, range(100), scale=(0, 1)) == first
    assert INTERVALS._replace(seed=1).estimate(values, range(100), scale=(0, 1)) != first


def test_the_standard_error_is_that_of_the_mean() -> None:
    assert standard_error(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(math.sqrt(5 / 3 / 4))


def test_a_resampled_mean_has_the_interval_of_the_bootstrap_of_means() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=400)
    intervals = Intervals(seed=0, n_bootstrap=4000, confidence=0.95)
    sums = np.stack([values, np.ones(400)], axis=1)
    found = intervals.resampled(sums, lambda s: {"mean": s[..., 0] / s[..., 1]})["mean"]
    half = 1.96 * values.std() / 20
    assert (found.n, found.value) == (400, pytest.approx(values.mean()))
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_what_does_not_exist_or_never_differs_has_no_interval() -> None:
    intervals = Intervals(seed=0, n_bootstrap=200, confidence=0.95)
    absent = intervals.resampled(np.ones((3, 1)), lambda s: {"x": s[..., 0] * np.nan, "y": s[..., 0] * 0 + 1})
    assert absent["x"][1:] == (None, None, None)
    assert absent["y"][1:] == (1, None, None)
    assert intervals.resampled(np.ones((0, 1)), lambda s: {"x": s[..., 0]}) == {}


def test_a_mean_grade_has_students_interval_kept_on_the_scale() -> None:
    grades = np.random.default_rng(2).integers(1, 7, size=30).astype(float)
    expected = t.interval(0.95, 29, loc=grades.mean(), scale=grades.std(ddof=1) / np.sqrt(30))
    assert student_t(grades, np.ones(30), confidence=0.95) == pytest.approx(expected)
    assert INTERVALS.estimate(grades, range(30), scale=(1, 6))[2:] == pytest.approx(expected)
    assert INTERVALS.estimate([6.0, 1.0], range(2), scale=(1, 6))[2:] == (1, 6)
    five = student_t(5 * grades, 5 * np.ones(30), confidence=0.95)
    assert five == pytest.approx(expected)  # five equal answers a prompt tell no more than one


def test_300_prompts_with_a_fifth_of_ties_show_7_points() -> None:
    values = [1.0] * 120 + [0.5] * 60 + [0.0] * 120
    found = minimum_detectable(values, range(300), confidence=0.95, power=0.8)
    assert found == pytest.approx(0.0723, abs=5e-5)
    # what it says: with such a difference, 4 of 5 tests show one
    z = (found - 1.96 * np.sqrt(0.2 / 300)) / np.sqrt(0.2 / 300)
    assert norm.cdf(z) == pytest.approx(0.8, abs=1e-3)
    assert minimum_detectable(values * 2, [*range(300)] * 2, confidence=0.95, power=0.8) == pytest.approx(found)
