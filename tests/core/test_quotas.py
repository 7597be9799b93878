from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from stages.core.quotas import domain_probabilities, draw_counts, entropy_bits, largest_remainder

SIZES = [50_000, 20_000, 4_000, 1_000]


def test_probabilities_by_hand() -> None:
    assert domain_probabilities([27, 8, 1], temperature=3.0).tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert domain_probabilities([30, 10], temperature=1.0).tolist() == [0.75, 0.25]
    assert domain_probabilities([30, 10, 0], temperature=math.inf).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("temperature", [1.0, 3.0, math.inf])
def test_domains_are_drawn_by_size_to_the_power_of_one_over_temperature(temperature: float) -> None:
    weights = np.array(SIZES, float) ** (1 / temperature)
    counts = draw_counts(SIZES, 3000, temperature=temperature, rng=np.random.default_rng(0))
    assert chisquare(counts, weights / weights.sum() * 3000).pvalue > 0.01


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any)


@given(sizes, st.floats(0, 1), st.sampled_from([0.5, 1.0, 3.0, math.inf]), st.booleans(), st.integers(0, 99))
def test_quotas_are_met_and_no_domain_gives_more_than_it_has(
    capacity: list[int], share: float, temperature: float, each_first: bool, seed: int
) -> None:
    n = int(share * sum(capacity))
    counts = draw_counts(capacity, n, temperature=temperature, rng=np.random.default_rng(seed), each_first=each_first)
    assert counts.sum() == n
    assert (counts <= capacity).all()
    assert (counts >= 0).all()
    if each_first:
        n_domains = sum(size > 0 for size in capacity)
        assert (counts > 0).sum() == min(n, n_domains) or n > n_domains
        assert (counts > 0).sum() >= min(n, n_domains)


def test_a_domain_that_runs_out_leaves_the_draw_to_the_others() -> None:
    counts = draw_counts([3, 1000], 500, temperature=math.inf, rng=np.random.default_rng(0))
    assert counts.tolist() == [3, 497]


def test_the_draw_equals_one_row_after_another() -> None:
    """The slow way: one domain at a time, the exhausted ones taken out; both have the same distribution."""
    capacity, n, p = [2, 3, 5], 8, np.array([2, 3, 5]) / 10

    def slowly(rng: np.random.Generator) -> tuple[int, ...]:
        counts = np.zeros(3, int)
        for _ in range(n):
            left = np.where(counts < capacity, p, 0)
            counts[rng.choice(3, p=left / left.sum())] += 1
        return tuple(counts.tolist())

    def tally(draws: list[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
        return {outcome: draws.count(outcome) for outcome in sorted(set(draws))}

    rng = np.random.default_rng(0)
    slow = tally([slowly(rng) for _ in range(4000)])
    fast = tally([tuple(draw_counts(capacity, n, temperature=1.0, rng=rng).tolist()) for _ in range(4000)])
    common = [outcome for outcome, count in slow.items() if count >= 40]
    expected = np.array([slow[outcome] for outcome in common], float)
    observed = np.array([fast[outcome] for outcome in common], float)
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 0.001


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 60)), min_size=1, max_size=6), st.integers(0, 200))
def test_the_largest_remainder_splits_what_there_is(parts: list[tuple[int, int]], n: int) -> None:
    weights, capacity = [list(column) for column in zip(*parts, strict=True)]
    found = largest_remainder(weights, n, capacity=capacity)
    assert sum(found) == min(n, sum(capacity))
    assert all(0 <= part <= most for part, most in zip(found, capacity, strict=True))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(0, 200))
def test_without_limits_no_part_is_a_whole_row_off_its_share(weights: list[int], n: int) -> None:
    found = largest_remainder(weights, n, capacity=[n] * len(weights))
    assert all(abs(part - n * weight / sum(weights)) < 1 for part, weight in zip(found, weights, strict=True))


def test_ties_go_to_the_earlier() -> None:
    assert largest_remainder([1, 1, 1], 4, capacity=[9, 9, 9]) == [2, 1, 1]


def test_entropy_is_that_of_equal_domains() -> None:
    assert entropy_bits([5, 5, 5, 5]) == 2.0
    assert entropy_bits([7]) == 0.0
    assert entropy_bits([3, 1, 0]) == pytest.approx(0.811278, abs=1e-6)


def test_nothing_is_drawn_from_nothing() -> None:
    rng = np.random.default_rng(0)
    assert draw_counts([0, 0], 0, temperature=1.0, rng=rng, each_first=True).tolist() == [0, 0]
