"""Prompts and answers to what annotators see, and back to rows."""

from typing import Any

import polars as pl
import pytest

from stages.common.errors import InputError
from stages.core.judging import Answer, Choice, Comparison, Grade, Prompt, Receipt, Submission, compare_by_reference
from stages.core.presentations import (
    answers_by_key,
    epoch_answers,
    epoch_grade_table,
    grade_table,
    prompts_by_id,
    verdict_table,
)
from stages.schema import EPOCH_GRADE, EPOCH_RESPONSE, GRADE, PROMPT, RESPONSE, VERDICT

SAID = Receipt("r", "m", "stop", 100, 20, 0.001, "5e")
PROMPTS = {"p:1": Prompt("p:1", "Which town?", ("Vola",)), "p:2": Prompt("p:2", "Which dish?", ("Soup",), True)}


def prompt_rows(*rows: dict[str, Any]) -> pl.DataFrame:
    bare = dict.fromkeys(PROMPT) | {"messages": [{"role": "user", "content": "Q"}]}
    return pl.DataFrame([{**bare, **row} for row in rows], schema=PROMPT)


def response_rows(*rows: tuple[str, int, str]) -> pl.DataFrame:
    return pl.DataFrame([(p, "x", s, text, "eot", 3) for p, s, text in rows], schema=RESPONSE, orient="row")


def test_prompts_keep_text_references_and_safety() -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go"},
    ]
    found = prompts_by_id(
        prompt_rows({"id": "p:1", "references": ["a", "b"], "safety": True}, {"id": "p:2", "messages": turns})
    )
    assert found["p:1"] == Prompt("p:1", "Q", ("a", "b"), True)
    assert found["p:2"] == Prompt("p:2", "User:\nHi\n\nAssistant:\nYes?\n\nUser:\nGo", (), False)


def test_a_prompt_twice_is_an_error() -> None:
    with pytest.raises(InputError, match="p:1: an id must be unique among prompts"):
        prompts_by_id(prompt_rows({"id": "p:1"}, {"id": "p:1"}))


def test_answers_are_sorted_by_prompt_and_sample() -> None:
    rows = response_rows(("p:2", 0, "c"), ("p:1", 1, "b"), ("p:1", 0, "a"))
    found = answers_by_key(rows, name="x", prompts=PROMPTS)
    assert list(found.items()) == [
        (("p:1", 0), Answer("a", "eot")),
        (("p:1", 1), Answer("b", "eot")),
        (("p:2", 0), Answer("c", "eot")),
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        pytest.param([("p:1", 0, "a")], r"x: must answer the prompt 'p:2', got 1 unanswered", id="missing"),
        pytest.param(
            [("p:1", 0, "a"), ("p:2", 0, "b"), ("p:1", 0, "c")], "x: p:1: sample 0 must stand once", id="twice"
        ),
        pytest.param(
            [("p:1", 0, "a"), ("p:2", 0, "b"), ("p:3", 0, "c")], "x: p:3: an answer needs its prompt", id="stray"
        ),
        pytest.param([("p:1", 0, None), ("p:2", 0, "b")], "x: p:1: an answer needs its text", id="null"),
    ],
)
def test_answers_that_do_not_fit_the_prompts_are_an_error(rows: list, told: str) -> None:
    with pytest.raises(InputError, match=told):
        answers_by_key(response_rows(*rows), name="x", prompts=PROMPTS)


def always_first(comparisons: list[Comparison]) -> list[Choice]:
    return [
        Choice("first", receipt=Receipt(f"{item.first.text} before {item.second.text}", "m")) for item in comparisons
    ]


def by_reference(comparisons: list[Comparison]) -> list[Choice]:
    return [compare_by_reference(item) for item in comparisons]


def table_of(a: dict, b: dict) -> pl.DataFrame:
    comparers = {"position": always_first, "check": by_reference}
    return verdict_table(a=a, b=b, names=("x", "y"), prompts=PROMPTS, comparers=comparers)


def test_every_pair_is_shown_in_both_orders_and_verdicts_name_contestants() -> None:
    a = {("p:1", 0): Answer("Vola", "eot"), ("p:2", 0): Answer("Stew", "eot")}
    b = {("p:1", 0): Answer("Brum", "eot"), ("p:2", 0): Answer("Soup", "eot")}
    table = table_of(a, b)
    assert dict(table.schema) == VERDICT
    assert table.select("prompt_id", "annotator", "order", "preference").rows() == [
        ("p:1", "check", "ab", "a"),
        ("p:1", "check", "ba", "a"),
        ("p:1", "position", "ab", "a"),
        ("p:1", "position", "ba", "b"),
        ("p:2", "check", "ab", "b"),
        ("p:2", "check", "ba", "b"),
        ("p:2", "position", "ab", "a"),
        ("p:2", "position", "ba", "b"),
    ]
    assert table.filter(annotator="position")["reply"][:2].to_list() == ["Vola before Brum", "Brum before Vola"]
    assert set(table.select("a", "b").rows()) == {("x", "y")}


@pytest.mark.parametrize("missing_side", ["x", "y"])
def test_an_answer_missing_on_one_side_is_an_error(missing_side: str) -> None:
    whole = {("p:1", 0): Answer("a", "eot"), ("p:1", 1): Answer("b", "eot")}
    part = {("p:1", 0): Answer("a", "eot")}
    with pytest.raises(
        InputError, match=rf"{missing_side}: must answer \(prompt, sample\) \('p:1', 1\), got 1 unanswered"
    ):
        table_of(part, whole) if missing_side == "x" else table_of(whole, part)


def test_grades_become_rows_and_a_safe_answer_says_so() -> None:
    def grade_all(submissions: list[Submission]) -> list[Grade]:
        return [Grade(4, "Pass", True if item.prompt.is_safety else None, None, SAID) for item in submissions]

    answers = {("p:2", 0): Answer("b", "eot"), ("p:1", 0): Answer("a", "eot")}
    table = grade_table(answers, responder="x", prompts=PROMPTS, graders={"j": grade_all})
    assert dict(table.schema) == GRADE
    assert table.rows() == [
        ("p:1", "x", 0, "j", 4, "Pass", None, None, *SAID),
        ("p:2", "x", 0, "j", 4, "Pass", True, None, *SAID),
    ]


def test_every_epoch_must_answer_every_prompt() -> None:
    rows = [(5, "p:1"), (5, "p:2"), (10, "p:1")]
    responses = pl.DataFrame([(e, p, "x", 0, "a", "eot", 1) for e, p in rows], schema=EPOCH_RESPONSE, orient="row")
    graders = {"j": lambda submissions: [Grade(1, "Fail") for _ in submissions]}
    with pytest.raises(InputError, match="x, epoch 10: must answer the prompt 'p:2'"):
        epoch_answers(responses, responder="x", prompts=PROMPTS)
    answers = epoch_answers(responses.head(2), responder="x", prompts=PROMPTS)
    table = epoch_grade_table(answers, responder="x", prompts=PROMPTS, graders=graders)
    assert dict(table.schema) == EPOCH_GRADE
    assert table.select("epoch", "prompt_id", "helpfulness").rows() == [(5, "p:1", 1), (5, "p:2", 1)]
