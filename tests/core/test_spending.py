"""What verdicts and grades cost, by annotator."""

import polars as pl
import pytest

from stages.core.spending import COLUMNS, spending
from stages.schema import ASKED, GRADE, VERDICT


def rows(*given: tuple[str, str | None, int | None, int | None, float | None], schema: dict = VERDICT) -> pl.DataFrame:
    said = [{**dict.fromkeys(schema), **dict(zip(("annotator", *COLUMNS), row, strict=True))} for row in given]
    return pl.DataFrame(said, schema=schema)


def test_requests_tokens_and_dollars_add_up_over_tables() -> None:
    verdicts = rows(("gpt", "r1", 100, 10, 0.25), ("gpt", "r2", 200, 20, 0.5), ("length", None, None, None, None))
    grades = rows(("gpt", "r3", 50, 5, 0.125), schema=GRADE)
    assert spending([verdicts, grades], by="annotator") == {
        "gpt": {"n_requests": 3, "n_uncounted": 0, "n_prompt_tokens": 350, "n_reply_tokens": 35, "cost": 0.875}
    }


def test_a_request_behind_two_rows_counts_once() -> None:
    twice = rows(("gpt", "r1", 100, 10, 0.25), ("gpt", "r1", 100, 10, 0.25))
    assert spending([twice, twice], by="annotator")["gpt"]["cost"] == 0.25


def test_what_no_price_or_no_answer_counts_is_said() -> None:
    found = spending(
        [rows(("a", "r1", 9, 1, 0.5), ("a", "r2", None, None, None), ("b", "r3", 9, 1, None))], by="annotator"
    )
    assert (found["a"]["cost"], found["a"]["n_uncounted"]) == (0.5, 1)
    assert "cost" not in found["b"]


def test_answers_are_added_up_by_who_gave_them() -> None:
    said = [{**dict.fromkeys(ASKED), "responder": "other", "request": f"r{i}", "cost": 0.25} for i in range(2)]
    assert spending([pl.DataFrame(said, schema=ASKED)], by="responder")["other"]["cost"] == 0.5


@pytest.mark.parametrize("table", [rows(), rows(("reference", None, None, None, None))])
def test_without_a_model_there_is_nothing(table: pl.DataFrame) -> None:
    assert spending([table], by="annotator") == {}
