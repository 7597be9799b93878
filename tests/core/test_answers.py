from typing import Any

import polars as pl

from stages.core.answers import Card, cards
from stages.schema import PROMPT, RESPONSE, VERDICT
from tests.run_tables import prompts


def response(prompt: str, text: str, *, reason: str = "eot", sample: int = 0) -> dict[str, Any]:
    return {"prompt_id": prompt, "sample": sample, "response": text, "finish_reason": reason, "n_tokens": 1}


def verdict(prompt: str, order: str, preference: str | None, **more: Any) -> dict[str, Any]:
    row = {"prompt_id": prompt, "sample": 0, "a": "ours", "b": "base", "annotator": "gpt", "order": order}
    return {**row, "preference": preference, **more}


def laid_out(verdicts: list[dict[str, Any]], **answers: list[dict[str, Any]]) -> list[Card]:
    return cards(
        pl.DataFrame(prompts("test", 3), schema=PROMPT).reverse(),
        judged="ours",
        responses={name: pl.DataFrame(rows, schema=RESPONSE) for name, rows in answers.items()},
        verdicts={"base": pl.DataFrame(verdicts, schema=VERDICT)},
        annotators=["gpt"],
    )


ONE = "authored:test-001"


def test_the_judged_arm_stands_first_and_prompts_in_the_order_of_ids() -> None:
    found = laid_out([], base=[], ours=[])
    assert [card.id for card in found] == [f"authored:test-00{i}" for i in range(3)]
    assert [answer.responder for answer in found[0].answers] == ["ours", "base"]


def test_an_answer_is_held_against_the_references() -> None:
    ours = [response(ONE, "lute 1"), response("authored:test-000", "lute 0")]
    found = laid_out([], ours=ours, base=[response(ONE, "a lute 1 and", reason="length")])
    assert [answer.match for answer in found[1].answers] == ["right", "contains"]
    assert [answer.match for answer in found[0].answers] == [None, None]  # no reference, no answer


def test_no_answer_is_none_and_an_empty_answer_is_empty() -> None:
    found = laid_out([], ours=[response(ONE, "")], base=[])
    assert [answer.response for answer in found[1].answers] == ["", None]


def test_two_orders_make_one_outcome() -> None:
    found = laid_out(
        [
            verdict(ONE, "ba", "a", reply="second"),
            verdict(ONE, "ab", "a", reply="first"),
            verdict("authored:test-002", "ab", "a"),
            verdict("authored:test-002", "ba", "tie"),
            verdict("authored:test-000", "ab", None, unscored_reason="no_reference"),
            verdict("authored:test-000", "ba", None, unscored_reason="no_reference"),
        ],
        ours=[],
        base=[],
    )
    assert [card.outcomes for card in found] == [
        {"base": {"gpt": "not_applicable"}},
        {"base": {"gpt": "win"}},
        {"base": {"gpt": "inconsistent"}},
    ]
    assert [reply.text for reply in found[1].answers[1].verdicts[0].replies] == ["first", "second"]


def test_a_failed_verdict_is_unscored_with_its_reason() -> None:
    found = laid_out([verdict(ONE, "ab", None, unscored_reason="refused"), verdict(ONE, "ba", "b")], ours=[], base=[])
    said = found[1].answers[1].verdicts[0]
    assert (said.outcome, said.reason) == ("unscored", "refused")


def test_only_the_first_sample_and_the_known_annotators_are_shown() -> None:
    ours = [response(ONE, "other", sample=1), response(ONE, "first")]
    others = [verdict(ONE, "ab", "a", annotator="nobody"), verdict(ONE, "ab", "b", sample=1)]
    found = laid_out(others, ours=ours, base=[])
    assert found[1].answers[0].response == "first"
    assert found[1].outcomes == {}
