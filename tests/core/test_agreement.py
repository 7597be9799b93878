"""Agreement by hand, by definition and by another way to compute it."""

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from stages.core import agreement
from stages.core.agreement import alpha, cohen_kappa, coincidences, statistics, tables, tie_discounted

LEVELS = st.sampled_from([0.0, 0.5, 1.0])
PAIRS = st.lists(st.tuples(LEVELS, LEVELS), min_size=1, max_size=30)


@given(PAIRS)
def test_tie_discounted_accuracy_is_the_papers_rule(pairs: list[tuple[float, float]]) -> None:
    def rule(x: float, y: float) -> float:
        if x == y:
            return 1
        return 0.5 if 0.5 in (x, y) else 0

    x, y = zip(*pairs, strict=True)
    assert tie_discounted(x, y).tolist() == [rule(*pair) for pair in pairs]


def test_kappa_by_hand() -> None:
    x, y = [1, 1, 0, 0, 0.5], [1, 0, 0, 0.5, 0.5]
    # shares of 0, 1/2, 1: x .4 .2 .4, y .4 .4 .2; agreement 3/5, by chance .16 + .08 + .08 = .32
    assert cohen_kappa(x, y, weights="nominal") == pytest.approx((0.6 - 0.32) / 0.68)
    # distance: (1 + 1/2) / 5 = .3; by chance 1/2 * (.4*.4 + .2*.4 + .2*.2 + .4*.4) + 1 * (.4*.2 + .4*.4) = .46
    assert cohen_kappa(x, y, weights="linear") == pytest.approx(1 - 0.3 / 0.46)


@given(PAIRS)
def test_kappa_is_its_definition_over_all_cross_pairs(pairs: list[tuple[float, float]]) -> None:
    x, y = zip(*pairs, strict=True)
    for weights, apart in (("linear", lambda a, b: abs(a - b)), ("nominal", lambda a, b: float(a != b))):
        observed = np.mean([apart(a, b) for a, b in pairs])
        expected = np.mean([apart(a, b) for a in x for b in y])
        kappa = cohen_kappa(x, y, weights=weights)
        if expected == 0:
            assert kappa is None
        else:
            assert kappa == pytest.approx(1 - observed / expected)


def test_kappa_is_1_for_agreement_0_for_chance_and_absent_for_habit() -> None:
    assert cohen_kappa([0, 1, 0.5], [0, 1, 0.5], weights="linear") == 1
    assert cohen_kappa([0, 0, 1, 1], [0, 1, 0, 1], weights="linear") == 0
    assert cohen_kappa([0.5, 0.5], [0.5, 0.5], weights="linear") is None
    assert cohen_kappa([], [], weights="linear") is None


def test_an_annotator_who_always_says_tie_has_accuracy_but_no_kappa() -> None:
    truth, lazy = [1, 0, 1, 0.5], [0.5] * 4
    assert tie_discounted(truth, lazy).mean() == 0.625
    assert cohen_kappa(truth, lazy, weights="linear") == pytest.approx(0)


@settings(max_examples=25, deadline=None)
@given(PAIRS)
@pytest.mark.filterwarnings("ignore:.*only one label:UserWarning")  # sklearn's, of habit
def test_kappa_and_alpha_are_those_of_the_libraries(pairs: list[tuple[float, float]]) -> None:
    x, y = (np.array(side) for side in zip(*pairs, strict=True))
    found = statistics(tables(x, y).sum(axis=0))
    said = [(2 * side).astype(int) for side in (x, y)]
    for weights, ours in (("linear", found["kappa"]), (None, cohen_kappa(x, y, weights="nominal"))):
        theirs = cohen_kappa_score(*said, labels=[0, 1, 2], weights=weights)
        if ours is not None and not np.isnan(ours):
            assert ours == pytest.approx(theirs, abs=1e-12)
    if len({*x, *y}) > 1:
        theirs = krippendorff.alpha(np.array([x, y]), level_of_measurement="nominal", value_domain=agreement.LEVELS)
        assert found["alpha"] == pytest.approx(theirs, abs=1e-12)
    else:
        assert np.isnan(found["alpha"])


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, np.nan]), min_size=4, max_size=4), min_size=2, max_size=12))
def test_alpha_of_several_annotators_with_gaps_is_the_librarys(items: list[list[float]]) -> None:
    total = np.zeros((3, 3))
    for said in items:
        known = [value for value in said if not np.isnan(value)]
        every_two = [(x, y) for i, x in enumerate(known) for y in known[i + 1 :]]
        if every_two:
            x, y = zip(*every_two, strict=True)
            total += coincidences(tables(x, y).sum(axis=0), n_annotators=len(known))
    if np.count_nonzero(total.sum(axis=0)) > 1:
        theirs = krippendorff.alpha(np.array(items).T, level_of_measurement="nominal", value_domain=agreement.LEVELS)
        assert alpha(total) == pytest.approx(theirs, abs=1e-12)
