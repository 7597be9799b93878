"""The annotators that need no model, and whom a choice is about."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.judging import (
    ORDERS,
    Answer,
    Choice,
    Comparison,
    Grade,
    Prompt,
    Submission,
    compare_by_length,
    compare_by_reference,
    grade_by_reference,
    preference,
)

RIGHT, CONTAINS, WRONG = Answer("Vola", "eot"), Answer("Vola, I think", "eot"), Answer("Brum", "eot")
PROMPT = Prompt("p:1", "Which town?", ("Vola",))


@pytest.mark.parametrize(
    ("first", "second", "position"),
    [
        (RIGHT, CONTAINS, "first"),
        (RIGHT, WRONG, "first"),
        (CONTAINS, WRONG, "first"),
        (CONTAINS, RIGHT, "second"),
        (RIGHT, RIGHT, "tie"),
        (CONTAINS, CONTAINS, "tie"),
        (WRONG, WRONG, "tie"),
    ],
)
def test_the_reference_annotator_prefers_the_better_match(first: Answer, second: Answer, position: str) -> None:
    assert compare_by_reference(Comparison(PROMPT, first, second)) == Choice(position)


def test_without_references_the_reference_annotator_does_not_apply() -> None:
    bare = Prompt("p:2", "Tell me a story.")
    assert compare_by_reference(Comparison(bare, RIGHT, WRONG)) == Choice(None, "no_reference")
    assert grade_by_reference(Submission(bare, RIGHT)) == Grade(None, None, unscored_reason="no_reference")


def test_the_length_annotator_prefers_more_characters() -> None:
    short, long = Answer("ab", "eot"), Answer("äöü", "length")
    assert compare_by_length(Comparison(PROMPT, short, long)).position == "second"
    assert compare_by_length(Comparison(PROMPT, long, short)).position == "first"
    assert compare_by_length(Comparison(PROMPT, short, Answer("cd", "eot"))).position == "tie"


@pytest.mark.parametrize(
    ("answer", "helpfulness", "outcome"), [(RIGHT, 6, "Excellent"), (CONTAINS, 3, "Pass"), (WRONG, 1, "Fail")]
)
def test_the_reference_annotator_grades_by_match_and_is_silent_on_safety(
    answer: Answer, helpfulness: int, outcome: str
) -> None:
    prompt = PROMPT._replace(is_safety=True)
    assert grade_by_reference(Submission(prompt, answer)) == Grade(helpfulness, outcome, safe=None)


@pytest.mark.parametrize(
    ("position", "order", "expected"),
    [
        ("first", "ab", "a"),
        ("second", "ab", "b"),
        ("first", "ba", "b"),
        ("second", "ba", "a"),
        ("tie", "ab", "tie"),
        ("tie", "ba", "tie"),
        (None, "ab", None),
    ],
)
def test_a_preference_is_about_contestants(position: str, order: str, expected: str) -> None:
    assert preference(position, order) == expected


@given(st.text(max_size=8), st.text(max_size=8))
def test_annotators_without_a_model_say_the_same_in_both_orders(a: str, b: str) -> None:
    contestants = {"a": Answer(a, "eot"), "b": Answer(b, "eot")}
    for compare in (compare_by_length, compare_by_reference):
        said = {
            preference(compare(Comparison(PROMPT, *(contestants[side] for side in order))).position, order)
            for order in ORDERS
        }
        assert len(said) == 1


def test_the_oracle_of_ranks_and_the_annotator_agree_on_every_pair() -> None:
    ranked = {RIGHT: 2, CONTAINS: 1, WRONG: 0}
    for first, second in product(ranked, repeat=2):
        expected = {1: "first", 0: "tie", -1: "second"}[
            (ranked[first] > ranked[second]) - (ranked[first] < ranked[second])
        ]
        assert compare_by_reference(Comparison(PROMPT, first, second)).position == expected
