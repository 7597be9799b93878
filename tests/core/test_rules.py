from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stages.core.rules import Rules, apply_rules, make_rules, named_groups, with_text
from stages.quality import Params
from tests.curation import candidates, row, section, turns

MINIATURE: Rules = section("quality", Params).rules
LONG = "The trade is that of a baker, who rises at four and sells bread at the gate until noon."
HOW_TO = {"group": "wikihow", "score": None, "title": "How to Tune the Harp?"}
SYSTEM = {"role": "system", "content": "Be kind."}
STORY = {"group": "writing_prompts", "prompt_score": 40, "score": 10}
FRENCH = "Le pain est vendu chaque matin sur la place du village avant le lever du jour par les boulangers du lieu."


def judged(rules: Rules = MINIATURE, /, **cells: Any) -> tuple[str, str, str] | None:
    """What becomes of one row: None when it is kept, else rule, value and limit."""
    told = {"prompt": "What is the trade of Ada?", "response": LONG, **cells}
    frame = candidates(row("x:1", told.pop("prompt"), told.pop("response"), **told))
    kept, dropped = apply_rules(with_text(frame), make_rules(rules))
    assert len(kept) + len(dropped) == 1
    return None if len(kept) else dropped.select("rule", "value", "limit").row(0)


def wikihow(response: str, prompt: str = "How to Tune the Harp?") -> tuple[str, str, str] | None:
    return judged(
        prompt=prompt,
        response=f"1. Find a quiet room and let the harp rest there for ten minutes.\n{response}",
        **HOW_TO,
    )


def test_a_clean_row_of_each_kind_is_kept() -> None:
    assert judged() is None
    assert wikihow("2. Turn it slowly until it sounds clear.") is None
    assert (
        judged(
            prompt="A baker finds a key.", response="It was a cold morning when I saw my key in the snow. " * 2, **STORY
        )
        is None
    )


# One row for each reason: the rule, what the row is like, and what is told of it.
FAULTS = [
    ("conversation", {"messages": turns("Hello?")}, "user", "user, assistant in turn, none empty"),
    ("conversation", {"messages": turns("Hello?", LONG, "And?")}, "user, assistant, user", None),
    ("conversation", {"messages": turns("Hello?", " \n")}, "1 empty of: user, assistant", None),
    ("conversation", {"messages": [SYSTEM, *turns("a?", LONG)]}, "system, user, assistant", None),
    ("conversation", {"messages": []}, "", None),
    ("over_18", {**STORY, "over_18": True}, "true", "false"),
    ("min_prompt_score", {**STORY, "prompt_score": 39}, "39", ">= 40"),
    ("min_prompt_score", {**STORY, "prompt_score": None}, "unknown", ">= 40"),
    ("min_score", {"score": 9}, "9", ">= 10"),
    ("min_score", {"score": None}, "unknown", ">= 10"),
    ("length", {"response": "A baker."}, "8 characters", "18 to 150"),
    ("length", {"response": "ä" * 151}, "151 characters", "18 to 150"),
    ("prompt_length", {"prompt": "Who?"}, "4 characters", "10 to 300"),
    ("prompt_length", {"prompt": "ä" * 301}, "301 characters", "10 to 300"),
    ("prompt_form", {**HOW_TO, "prompt": "Tune the Harp"}, "Tune the Harp", r"^How to .*\?$"),
    ("self_contained_title", {"prompt": "Who is Ada?", "title": "Who is Ada?"}, "3 words", None),
    ("self_contained_title", {"prompt": "How do bakers do this?", "title": "How do bakers do this?"}, "this", None),
    ("language", {"response": FRENCH}, "0.0 of 21 words", ">= 0.15 common English words"),
    ("first_person", {"response": "I think that it is a baker."}, "I", "absent"),
    ("first_person", {"response": "It's a baker; I've seen him."}, "I", "absent"),
    ("first_person", {"response": "My uncle said it was a baker."}, "My", "absent"),
    ("references", {"response": "As mentioned above, it is a baker."}, "As mentioned", "absent"),
    ("references", {"response": "As old_miller said in a comment: a baker."}, "in a comment", "absent"),
    ("references", {"response": "The other answer is right, a baker."}, "other answer", "absent"),
    ("references", {"response": "Ask on Stack Exchange, they know."}, "Stack Exchange", "absent"),
    ("references", {"response": "It is a baker, @wren, and no other."}, " @wren", "absent"),
    ("references", {"response": "It is a baker.\nEDIT: or a miller."}, "EDIT:", "absent"),
    ("references", {"response": "What have you tried so far?"}, "?", "absent"),
    ("template_opening", {"response": "This article explains how one bakes."}, "This article", "absent"),
    ("leftover_markup", {"response": "The trade is that of a <b>baker</b>."}, "<b>", "absent"),
    ("leftover_markup", {"response": "The trade is that of a baker &nbsp;&nbsp;."}, "&nbsp;", "absent"),
    ("leftover_markup", {"response": "The trade is [a baker](photo.png)."}, "[a baker](photo.png)", "absent"),
    ("leftover_markup", {"response": "Buy bread at www.boots.example today."}, "www.b", "absent"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "cells", "value", "limit"), FAULTS)
def test_a_row_with_a_fault_is_dropped_for_it(rule: str, cells: dict[str, Any], value: str, limit: str | None) -> None:
    told = judged(**cells)
    assert told is not None
    assert told[:2] == (rule, value)
    assert limit in (None, told[2])


@pytest.mark.parametrize(
    ("text", "value"),
    [("## Tips\n1. Rest.", "## Tips"), ("Advertisement", "Advertisement"), ("Credit: wikiphoto.", "Credit: ")],
)
def test_what_is_of_the_page_does_not_belong_to_an_article(text: str, value: str) -> None:
    assert wikihow(text) == ("wikihow_sections", value, "absent")


def test_every_rule_is_seen_to_drop_a_row() -> None:
    assert {*(rule for rule, *_ in FAULTS), "wikihow_sections"} == set(Rules.model_fields)


@pytest.mark.parametrize(
    "response",
    [
        "We bake our bread at four, as bakers must.",  # "we" stays
        "Set it:\n\n```\nfor I in my: print(I)  # <b>\n```\n\nand bake.",  # code is no prose
        "Write `<b>I</b>` and then bake the bread.",
        "It is a baker if 3 < 4 and 5 > 4, always.",
        "Bakers comminute the grain, item by item, mystically.",  # no word of these is "I" or "my"
        "The answer is a baker, as is said of Ada.",
        "AT&T; that is who bakes the bread.",
    ],
)
def test_what_only_looks_like_a_fault_is_kept(response: str) -> None:
    assert judged(response=response) is None


def test_limits_are_inclusive() -> None:
    assert judged(score=10) is None
    assert judged(response="x" * 18) is judged(response="x" * 150) is None
    assert judged(response="x" * 17) is not None


def test_a_title_with_a_body_of_its_own_may_point_outside() -> None:
    assert judged(prompt="The bread sinks. How do bakers do this?", title="How do bakers do this?") is None


def test_the_first_rule_that_fails_is_told() -> None:
    told = judged(score=3, response="I think @wren said <b>so</b>, as mentioned.")
    assert told is not None
    assert told[0] == "min_score"


def test_a_group_without_an_entry_is_not_held_to_a_rule() -> None:
    for rule, cells, *_ in FAULTS:
        if rule != "conversation":
            assert judged(**{**cells, "group": "elsewhere"}) is None


def test_rules_without_groups_drop_nothing() -> None:
    values = MINIATURE.model_dump()
    off = {name: {**value, "groups": []} if "groups" in value else {} for name, value in values.items()}
    rules = Rules.model_validate(off)
    assert [judged(rules, **cells) for _, cells, *_ in FAULTS] == [None] * len(FAULTS)


def test_no_rows_pass_through() -> None:
    kept, dropped = apply_rules(with_text(candidates()), make_rules(MINIATURE))
    assert len(kept) == len(dropped) == 0


def test_all_that_the_assistant_says_is_measured() -> None:
    frame = candidates(row("x:1", messages=turns("a?", "b", "c?", "d")))
    assert with_text(frame).select("prompt", "response", "roles").row(0) == (
        "a?",
        "b\n\nd",
        "user, assistant, user, assistant",
    )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"references": {"groups": ["a"], "patterns": ["(open"]}}, "regular expressions"),
        ({"prompt_form": {"a": "[z-a]"}}, "regular expressions"),
        ({"length": {"a": {"min_chars": 9, "max_chars": 8}}}, "at least min_chars 9"),
        ({"first_person": {"groups": ["a"], "words": []}}, "at least 1"),
        ({"language": {"groups": ["a"], "min_share": 1.5, "min_words": 1}}, "less than or equal to 1"),
    ],
)
def test_rules_that_cannot_be_applied_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Rules.model_validate({**MINIATURE.model_dump(), **changes})


def test_a_word_of_the_first_person_is_a_word_and_no_pattern() -> None:
    rules = Rules.model_validate(
        {**MINIATURE.model_dump(), "first_person": {"groups": ["stack_exchange_stem"], "words": ["me."]}}
    )
    assert judged(rules, response="Bakers met the miller at the gate.") is None


@pytest.mark.parametrize("rule", ["references", "template_opening"])
def test_what_a_pattern_sets_ends_with_it(rule: str) -> None:
    limits = {"groups": ["stack_exchange_stem"], "patterns": ["(?-i)Miller", "baker"]}
    rules = Rules.model_validate({**MINIATURE.model_dump(), rule: limits})
    assert judged(rules, response="BAKER is what the family was called.") is not None
    assert judged(rules, response="MILLER is what the family was called.") is None


@pytest.mark.parametrize(
    "limits",
    [
        {"length": {"a": {"min_chars": 1, "max_chars": 10**30}}},
        {"min_score": {"a": 10**30}},
        {"min_score": {"a": -(10**30)}},
    ],
)
def test_a_limit_that_no_column_can_hold_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="than or equal to"):
        Rules.model_validate(MINIATURE.model_dump() | limits)


def test_named_groups_are_those_of_every_kind_of_rule() -> None:
    off = {name: {} for name in ("min_prompt_score", "length", "prompt_length", "prompt_form")}
    values = MINIATURE.model_dump() | off | {"min_score": {"b": 1}}
    for rule in values.values():
        rule.update({"groups": ["a"]} if "groups" in rule else {})
    assert named_groups(Rules.model_validate(values)) == {"a", "b"}
