"""People's verdicts, held against the answers of this run."""

import polars as pl
import pytest

from stages.common.errors import InputError
from stages.core.judging import Answer
from stages.core.people import PERSON_VERDICT, current, orient

ANSWERS = {
    "x": {("p:1", 0): Answer("one", "eot"), ("p:2", 0): Answer("two", "eot")},
    "y": {("p:1", 0): Answer("uno", "eot"), ("p:2", 0): Answer("due", "eot")},
}


def people(*rows: tuple) -> pl.DataFrame:
    filled = [(*row, *(None,) * (len(PERSON_VERDICT) - len(row))) for row in rows]
    return pl.DataFrame(filled, schema=PERSON_VERDICT, orient="row")


def test_a_verdict_that_names_the_arm_second_is_turned_round() -> None:
    rows = people(("p:1", 0, "y", "x", "ann", "a", "uno", "one"), ("p:1", 0, "y", "x", "bo", "tie"))
    found = current(rows, ANSWERS, arm="x", opponents=["y"])
    assert found.verdicts.select(list(PERSON_VERDICT)).rows() == [
        ("p:1", 0, "x", "y", "ann", "b", "one", "uno"),
        ("p:1", 0, "x", "y", "bo", "tie", None, None),
    ]
    assert found.counts == {"n_used": 2, "n_other": 0, "n_stale": 0}


def test_turning_twice_changes_nothing() -> None:
    rows = people(("p:1", 0, "x", "y", "ann", "a", "one", "uno"), ("p:2", 0, "y", "x", "ann", "b", "due", "two"))
    assert orient(orient(rows, a="y"), a="x").equals(orient(rows, a="x"))


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (("p:1", 0, "x", "y", "ann", "a"), "used"),
        (("p:1", 0, "x", "y", "ann", "a", "one", "uno"), "used"),
        (("p:1", 0, "x", "y", "ann", "a", "one before", "uno"), "stale"),
        (("p:1", 0, "y", "x", "ann", "a", "uno", "another"), "stale"),
        (("p:1", 0, "x", "z", "ann", "a"), "other"),
        (("p:1", 0, "z", "y", "ann", "a"), "other"),
        (("p:9", 0, "x", "y", "ann", "a"), "other"),
        (("p:1", 3, "x", "y", "ann", "a"), "other"),
    ],
)
def test_only_verdicts_on_this_runs_answers_count_and_the_rest_is_counted(row: tuple, state: str) -> None:
    found = current(people(row), ANSWERS, arm="x", opponents=["y"])
    assert found.counts == {f"n_{name}": int(name == state) for name in ("used", "other", "stale")}
    assert found.verdicts.height == found.counts["n_used"]


def test_a_second_verdict_of_a_person_on_a_pair_is_an_error_even_turned_round() -> None:
    rows = people(("p:1", 0, "x", "y", "ann", "a"), ("p:1", 0, "y", "x", "ann", "b"))
    with pytest.raises(InputError, match="two verdicts of 'ann' on 'p:1', sample 0, against 'y'"):
        current(rows, ANSWERS, arm="x", opponents=["y"])


def test_nobody_has_said_anything() -> None:
    assert current(people(), ANSWERS, arm="x", opponents=["y"]).verdicts.is_empty()
