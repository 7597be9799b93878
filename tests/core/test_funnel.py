import polars as pl
import pytest

from stages.common.errors import InputError
from stages.core.funnel import Measured, flows, measures, reasons, table_1
from stages.schema import EXAMPLE

QUALITY = {
    "a": {"n_in": 100, "n_kept": 60, "dropped": {"score": 30, "length": 10}},
    "b": {"n_in": 5, "n_kept": 0, "dropped": {"length": 5}},
}
DEDUP = {"a": {"n_in": 60, "n_kept": 55, "dropped": {"near_duplicate": 5, "same_prompt": 0}}}


def sample(**n: int) -> pl.DataFrame:
    rows = [{"id": f"{source}:{i}", "source": source} for source, count in n.items() for i in range(count)]
    return pl.DataFrame(rows, schema=EXAMPLE)


def test_rows_are_followed_to_the_training_sets() -> None:
    found = flows(QUALITY, DEDUP, {"ours": sample(a=7), "theirs": sample(a=2, b=3)})
    assert [tuple(flow) for flow in found] == [
        ("a", 100, 40, 5, 55, {"ours": 7, "theirs": 2}),
        ("b", 5, 5, 0, 0, {"ours": 0, "theirs": 3}),
    ]


@pytest.mark.parametrize(
    ("quality", "dedup"),
    [
        ({"n_in": 101, "n_kept": 60, "dropped": {"score": 40}}, DEDUP["a"]),
        ({"n_in": 100, "n_kept": 60, "dropped": {"score": 40}}, {"n_in": 60, "n_kept": 60, "dropped": {"x": 5}}),
        ({"n_in": 100, "n_kept": 61, "dropped": {"score": 39}}, DEDUP["a"]),
    ],
)
def test_rows_that_are_lost_between_two_counts_are_an_error(
    quality: dict[str, object], dedup: dict[str, object]
) -> None:
    with pytest.raises(InputError, match="rows of 'a' must be dropped or kept"):
        flows({"a": quality}, {"a": dedup}, {})


def test_rules_come_before_repeats_and_the_greater_first() -> None:
    found = [(reason.stage, reason.rule, reason.n, reason.by_source) for reason in reasons(QUALITY, DEDUP)]
    assert found == [
        ("quality", "score", 30, {"a": 30, "b": 0}),
        ("quality", "length", 15, {"a": 10, "b": 5}),
        ("dedup", "near_duplicate", 5, {"a": 5}),
    ]


def test_table_1_holds_the_papers_groups_and_ours() -> None:
    ours = {"groups": {"wikihow": {"n": 3, "mean_prompt_tokens": 12.5, "mean_response_tokens": 90.0, "n_trimmed": 1}}}
    theirs = {"groups": {"all_of_it": {"n": 9, "mean_prompt_tokens": 1.0, "mean_response_tokens": 2.0, "n_trimmed": 0}}}
    rows = {row.name: row for row in table_1({"ours": ours, "theirs": theirs})}
    assert len(rows) == 7
    assert rows["wikiHow"].paper == (200, 12, 1811, None)
    assert rows["wikiHow"].arms == {"ours": (3, 12.5, 90.0, 1), "theirs": None}
    assert rows["all of it"].paper is None
    assert list(rows)[-1] == "all of it"


def test_measures_stand_beside_those_of_random_draws() -> None:
    span = {"mean": 0.5, "min": 0.4, "max": 0.6}
    random = {"n": 20, "domain_entropy_bits": span, "coverage": span, "response_chars": {"p50": span, "p95": span}}
    chars = {"p50": 0.4, "p95": 0.61}
    arms = {
        "a": {
            "measures": {"domain_entropy_bits": 0.5, "coverage": 0.39, "response_chars": chars},
            "random_draws": random,
        },
        "b": {"measures": {"domain_entropy_bits": 0.0, "coverage": 0.5, "spread": 0.2, "response_chars": chars}},
    }
    rows = {row.name.split(":")[0]: row.arms for row in measures(arms)}
    assert rows["coverage"]["a"] == Measured(0.39, span)
    assert rows["coverage"]["a"].is_beyond
    assert not rows["median response, characters"]["a"].is_beyond
    assert rows["95th percentile of the responses, characters"]["a"].is_beyond
    assert rows["coverage"]["b"] == Measured(0.5, None)
    assert not rows["coverage"]["b"].is_beyond
    assert rows["spread"] == {"a": None, "b": Measured(0.2, None)}
    assert rows["entropy of the domains, bits"]["b"] == Measured(0.0, None)
