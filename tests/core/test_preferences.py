"""What two orders of a pair amount to."""

from itertools import product

import polars as pl
import pytest

from stages.core.preferences import preference_values, resolve, scored
from stages.schema import VERDICT


def verdicts(*rows: tuple[str, str, str | None, str | None]) -> pl.DataFrame:
    """Rows of (prompt_id, order, preference, unscored_reason) of annotator `j` on x against y."""
    return pl.DataFrame(
        [
            (prompt_id, 0, "x", "y", "j", order, preference, reason, *[None] * (len(VERDICT) - 8))
            for prompt_id, order, preference, reason in rows
        ],
        schema=VERDICT,
        orient="row",
    )


def outcome(first: tuple[str | None, str | None], second: tuple[str | None, str | None]) -> str:
    """The outcome of one pair from (preference, reason) in both orders."""
    return str(resolve(verdicts(("p", "ab", *first), ("p", "ba", *second)))["outcome"].item())


SAID = {"a": ("a", None), "b": ("b", None), "tie": ("tie", None)}


@pytest.mark.parametrize(("first", "second"), list(product(SAID, repeat=2)))
def test_the_same_twice_is_the_outcome_and_anything_else_is_inconsistent(first: str, second: str) -> None:
    same = {"a": "win", "b": "lose", "tie": "tie"}[first]
    assert outcome(SAID[first], SAID[second]) == (same if first == second else "inconsistent")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(SAID["a"], (None, "truncated"), "unscored", id="one failed"),
        pytest.param((None, "refused"), (None, "empty"), "unscored", id="both failed"),
        pytest.param((None, "no_reference"), (None, "no_reference"), "not_applicable", id="nothing to go by"),
        pytest.param((None, "no_reference"), (None, "refused"), "unscored", id="mixed"),
    ],
)
def test_a_failed_order_fails_the_pair_and_is_no_tie(first: tuple, second: tuple, expected: str) -> None:
    assert outcome(first, second) == outcome(second, first) == expected


def test_a_person_sees_a_pair_once() -> None:
    assert resolve(verdicts(("p", None, "b", None)))["outcome"].to_list() == ["lose"]


def test_only_scored_pairs_count_and_neither_is_a_half() -> None:
    rows = [
        ("p1", "a", "a"),
        ("p2", "b", "b"),
        ("p3", "tie", "tie"),
        ("p4", "a", "b"),
        ("p5", None, "a"),
        ("p6", None, None),
    ]
    pairs = resolve(
        verdicts(
            *(
                (prompt_id, order, said, None if said else ("no_reference" if prompt_id == "p6" else "empty"))
                for prompt_id, *both in rows
                for order, said in zip(("ab", "ba"), both, strict=True)
            )
        )
    )
    assert pairs["outcome"].to_list() == ["win", "lose", "tie", "inconsistent", "unscored", "not_applicable"]
    assert scored(pairs)["prompt_id"].to_list() == ["p1", "p2", "p3", "p4"]
    assert preference_values(pairs)["value"].to_list() == [1, 0, 0.5, 0.5]


def test_pairs_are_sorted_whatever_the_order_of_verdicts() -> None:
    rows = [(f"p{i}", order, "a", None) for i in range(20) for order in ("ab", "ba")]
    assert resolve(verdicts(*rows[::-1])).equals(resolve(verdicts(*rows)))


def test_no_verdicts_make_no_pairs() -> None:
    assert resolve(verdicts()).is_empty()
