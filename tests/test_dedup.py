from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages import dedup
from stages.dedup import Params, Result, run
from stages.runtime.files import read_table, write_table
from stages.schema import DEDUP_DROPPED, EXAMPLE, PROMPT
from tests.curation import examples, prompts, row, section, turns

MINIATURE: Params = section("dedup", Params)
NONE = examples()
WORDS = [f"w{i}" for i in range(400)]
LONG = " ".join(WORDS[:60])
NEARLY = " ".join([*WORDS[:57], "x", "y", "z"])  # 53 of 56 shingles of 5, so J = 53 / 59
TEST_PROMPT = "In which town was Ada Marsh born?"


def params(**changes: Any) -> Params:
    return Params.model_validate({**MINIATURE.model_dump(), **changes})


def deduped(*rows: dict[str, Any], unfiltered: pl.DataFrame = NONE, asked: tuple[str, ...] = (TEST_PROMPT,)) -> Result:
    return run(examples(*rows), unfiltered, prompts(*asked), params())


def told(result: Result) -> list[tuple[Any, ...]]:
    return result.dropped.select("id", "rule", "partner_id", "similarity").rows()


def test_a_near_duplicate_names_the_kept_row_and_the_exact_jaccard() -> None:
    found = deduped(row("a:1", response=LONG, score=20), row("a:2", response=NEARLY, score=30))
    assert told(found) == [("a:1", "near_duplicate", "a:2", 53 / 59)]
    assert found.kept["id"].to_list() == ["a:2"]


def test_near_duplicates_are_found_across_sources() -> None:
    found = deduped(row("a:1", response=LONG), row("b:1", response=NEARLY, group="wikihow"))
    assert told(found) == [("b:1", "near_duplicate", "a:1", 53 / 59)]
    assert found.metrics["sources"]["b"]["dropped"]["near_duplicate"] == 1


@pytest.mark.parametrize(("scores", "kept"), [((5, 9), "a:2"), ((9, 5), "a:1"), ((5, 5), "a:1"), ((5, None), "a:2")])
def test_rows_without_votes_are_kept_first_then_by_score_then_by_id(scores: tuple[int, int | None], kept: str) -> None:
    found = deduped(*(row(f"a:{i}", response=LONG, score=score) for i, score in enumerate(scores, start=1)))
    assert found.kept["id"].to_list() == [kept]


def test_a_short_response_may_answer_many_questions() -> None:
    found = deduped(row("a:1", "Where is Ada from?", "From Brastow."), row("a:2", "Where is Bo from?", "From Brastow."))
    assert told(found) == []


def test_the_same_short_answer_to_the_same_question_is_a_duplicate() -> None:
    found = deduped(
        row("a:1", "Where is Ada from?", "From Brastow."), row("a:2", "Where is ADA from ?", "From Brastow!")
    )
    assert told(found) == [("a:2", "near_duplicate", "a:1", 1.0)]


def test_another_short_answer_to_the_same_question_is_kept() -> None:
    found = deduped(row("a:1", "Where is Ada from?", "From Brastow."), row("a:2", "Where is Ada from?", "From Gen."))
    assert told(found) == []


def test_all_turns_of_a_dialogue_are_compared() -> None:
    halves = LONG[: len(LONG) // 2], LONG[len(LONG) // 2 :]
    dialogue = turns("Go on.", halves[0], "And then?", halves[1])
    found = deduped(row("a:1", messages=dialogue), row("a:2", messages=dialogue))
    assert told(found) == [("a:2", "near_duplicate", "a:1", 1.0)]


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        (TEST_PROMPT, "same_prompt"),
        (TEST_PROMPT.upper(), "same_prompt"),
        ("In which town -- was Ada Marsh born", "same_prompt"),
        (f"The letters do not say. {TEST_PROMPT}", "contains_prompt"),
    ],
)
def test_a_row_that_holds_a_test_prompt_is_dropped_with_partner_and_span(prompt: str, rule: str) -> None:
    found = deduped(row("a:1", prompt))
    assert told(found) == [("a:1", rule, "authored:test-0000", 1.0)]
    assert found.dropped["span"].to_list() == ["in which town was ada marsh born"]


def test_a_test_prompt_in_a_response_or_a_later_turn_is_found() -> None:
    found = deduped(
        row("a:1", response=f"They asked: {TEST_PROMPT}"),
        row("a:2", messages=turns("Hello.", "Hello.", TEST_PROMPT, "In Brastow.")),
        row("a:3", "In which town was Bo Marsh born?"),
    )
    assert [(id_, rule) for id_, rule, *_ in told(found)] == [("a:1", "contains_prompt"), ("a:2", "same_prompt")]


def test_no_row_is_dropped_for_the_sake_of_a_contaminated_one() -> None:
    found = deduped(
        row("a:1", TEST_PROMPT, LONG, score=90), row("a:2", response=NEARLY), row("a:3", response=LONG, score=1)
    )
    assert [(id_, rule, partner) for id_, rule, partner, _ in told(found)] == [
        ("a:1", "same_prompt", "authored:test-0000"),
        ("a:3", "near_duplicate", "a:2"),
    ]


def test_the_unfiltered_sample_loses_contaminated_rows_and_nothing_else() -> None:
    twins = [row("a:1", response=LONG), row("a:2", response=LONG)]
    dirty = [row("a:3", TEST_PROMPT, "Dunno."), row("a:4", TEST_PROMPT)]
    found = deduped(*twins, dirty[1], unfiltered=examples(*twins, *dirty))
    assert found.unfiltered["id"].to_list() == ["a:1", "a:2"]
    assert [(id_, rule) for id_, rule, *_ in told(found)] == [
        ("a:2", "near_duplicate"), ("a:3", "same_prompt"), ("a:4", "same_prompt")
    ]  # fmt: skip
    zeros = {"same_prompt": 0, "contains_prompt": 0, "near_duplicate": 0}
    assert found.metrics == {
        "n_in": 3,
        "n_kept": 1,
        "sources": {"a": {"n_in": 3, "n_kept": 1, "dropped": {**zeros, "same_prompt": 1, "near_duplicate": 1}}},
        "unfiltered": {
            "n_in": 4, "n_kept": 2, "sources": {"a": {"n_in": 4, "n_kept": 2, "dropped": {**zeros, "same_prompt": 2}}}
        },
    }  # fmt: skip


def noisy(n: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    texts = [rng.choices(WORDS, k=rng.randrange(4, 40)) for _ in range(n // 4)]
    rows = []
    for i in range(n):
        words = list(rng.choice(texts))
        words[-1] = rng.choice(WORDS)
        prompt = TEST_PROMPT if rng.random() < 0.05 else f"Question {i % 7}?"
        rows.append(row(f"{'abc'[i % 3]}:{i:04d}", prompt, " ".join(words), score=rng.choice([None, 3, 4])))
    return rows


def test_the_counts_add_up_and_partners_are_kept() -> None:
    rows = noisy(400)
    found = deduped(*rows, unfiltered=examples(*rows[:100]))
    assert len(found.kept) + len(found.dropped) == 400
    assert {*found.kept["id"], *found.dropped["id"]} == {cells["id"] for cells in rows}
    repeated = found.dropped.filter(pl.col("rule") == "near_duplicate")
    assert len(repeated) > 50
    assert {*repeated["partner_id"]} <= {*found.kept["id"]}
    for tables in (found.metrics, found.metrics["unfiltered"]):
        for counts in tables["sources"].values():
            assert counts["n_in"] == counts["n_kept"] + sum(counts["dropped"].values())
        assert tables["n_kept"] == sum(counts["n_kept"] for counts in tables["sources"].values())


def test_the_result_does_not_depend_on_the_order_of_rows() -> None:
    rows = noisy(200)
    plain = deduped(*rows, unfiltered=examples(*rows[:50]))
    other = deduped(*rows[::-1], unfiltered=examples(*rows[:50][::-1]))
    assert all(a.equals(b) for a, b in zip(plain[:3], other[:3], strict=True))
    assert plain.metrics == other.metrics


def test_no_rows_give_no_rows() -> None:
    found = run(NONE, NONE, prompts(), params())
    assert dict(found.kept.schema) == dict(found.unfiltered.schema) == EXAMPLE
    assert dict(found.dropped.schema) == DEDUP_DROPPED
    assert found.metrics["n_in"] == len(found.dropped) == 0


def test_the_command_reads_and_writes_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps({"dedup": params().model_dump()}))
    rows = examples(*noisy(60))
    for name in ("kept", "unfiltered"):
        write_table(Path(f"data/quality/{name}.parquet"), rows, EXAMPLE)
    write_table(Path("data/prompts/dev.parquet"), prompts(), PROMPT)
    write_table(Path("data/prompts/test.parquet"), prompts(TEST_PROMPT), PROMPT)
    dedup.main()
    expected = run(rows, rows, prompts(TEST_PROMPT), params())
    for name, schema in (("kept", EXAMPLE), ("unfiltered", EXAMPLE), ("dropped", DEDUP_DROPPED)):
        assert read_table(Path(f"data/dedup/{name}.parquet"), schema).equals(getattr(expected, name))
    assert json.loads(Path("metrics/dedup.json").read_text()) == expected.metrics
