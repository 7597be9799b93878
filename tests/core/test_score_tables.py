"""The tables of metrics/score on a few rows whose numbers can be worked out by hand."""

import polars as pl
import pytest

from stages.core.accuracy import MEASURED
from stages.core.agreement_tables import AGREEMENT, agreement_groups_table, agreement_table
from stages.core.checkpoints import standing_by_grade
from stages.core.intervals import Intervals, wilson
from stages.core.judging import Answer
from stages.core.length_control import length_controlled
from stages.core.score_tables import (
    Curve,
    accuracy_table,
    checkpoints_table,
    difference_table,
    grades_table,
    pairwise_table,
    win_rate_table,
)
from stages.schema import EPOCH_GRADE, GRADE

INTERVALS = Intervals(seed=0, n_bootstrap=500, confidence=0.95)
PAIRS = ("prompt_id", "sample", "a", "b", "annotator", "outcome")


def pairs(*rows: tuple[str, str, str], opponent: str = "base") -> pl.DataFrame:
    """Pairs of (prompt, annotator, outcome)."""
    return pl.DataFrame([(p, 0, "x", opponent, j, o) for p, j, o in rows], schema=PAIRS, orient="row")


def grades(schema: dict, *rows: dict) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], schema=schema)


def measured(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=MEASURED, orient="row")


def test_pairwise_rates_are_over_scored_pairs_with_a_row_an_outcome() -> None:
    outcomes = ["win"] * 5 + ["tie"] * 2 + ["lose"] + ["inconsistent"] * 2 + ["unscored"] * 7 + ["not_applicable"] * 9
    table = pairwise_table(pairs(*((f"p{i}", "j", outcome) for i, outcome in enumerate(outcomes))), INTERVALS)
    assert table.columns == ["opponent", "annotator", "outcome", "n", "rate", "low", "high"]
    assert table.select("outcome", "n", "rate").rows() == [
        ("win", 10, 0.5), ("tie", 10, 0.2), ("lose", 10, 0.1), ("inconsistent", 10, 0.2)
    ]  # fmt: skip
    assert table.select("low", "high").row(0) == pytest.approx(wilson(0.5, n=10, confidence=0.95))


def test_an_annotator_who_scored_nothing_has_no_row() -> None:
    assert pairwise_table(pairs(("p1", "j", "not_applicable"), ("p2", "j", "unscored")), INTERVALS).is_empty()


def test_accuracy_has_a_row_a_measure_and_none_of_nothing() -> None:
    rows = measured(("p1", 0, 1, 1, 1), ("p2", 0, 0, 1, 1), ("p3", 0, 0, 0, 1), ("p4", 0, 0, 0, 0))
    table = accuracy_table({"x": rows, "y": measured()}, INTERVALS)
    assert table.select("responder", "measure", "n", "rate").rows() == [
        ("x", "exact", 4, 0.25), ("x", "contains", 4, 0.5), ("x", "finished", 4, 0.75)
    ]  # fmt: skip
    assert table.columns == ["responder", "measure", "n", "rate", "low", "high"]


def test_a_difference_is_paired_by_prompt_and_sample() -> None:
    x = measured(("p1", 0, 1, 1, 1), ("p2", 0, 1, 1, 1), ("p3", 0, 0, 1, 1), ("p9", 0, 1, 1, 1))
    y = measured(("p3", 0, 1, 1, 1), ("p2", 0, 0, 1, 1), ("p1", 0, 0, 0, 1))
    table = difference_table({"x": x, "y": y, "z": measured()}, a="x", opponents=["y", "z"], intervals=INTERVALS)
    assert table.columns == ["a", "b", "measure", "n", "difference", "low", "high"]
    assert table.select("a", "b", "measure", "n", "difference").rows() == [
        ("x", "y", "exact", 3, pytest.approx(1 / 3)),
        ("x", "y", "contains", 3, pytest.approx(1 / 3)),
        ("x", "y", "finished", 3, 0),
    ]
    assert (table["low"] <= table["difference"]).all()
    assert (table["high"] > table["difference"]).all()  # three equal differences are not certain


def test_agreement_is_over_pairs_that_both_scored() -> None:
    said = {"p1": ("win", "win"), "p2": ("lose", "tie"), "p3": ("tie", "inconsistent"), "p4": ("win", "lose")}
    rows = [(p, j, o) for p, both in said.items() for j, o in zip(("ann", "gpt"), both, strict=True)]
    table = agreement_table(pairs(*rows, ("p5", "ann", "win"), ("p5", "gpt", "unscored")), INTERVALS)
    assert table.columns == list(AGREEMENT)
    row = table.row(0, named=True)
    # 1, 1/2, 1, 0; an inconsistent pair prefers neither side, yet is no declared tie
    assert (row["annotator_a"], row["annotator_b"], row["n"], row["agreement"]) == ("ann", "gpt", 4, 0.625)
    assert (row["tie_rate_a"], row["tie_rate_b"]) == (0.25, 0.25)
    # distance .375; by chance, shares 1/4 1/4 1/2 and 1/4 1/2 1/4 of lose, neither, win: .4375
    assert row["kappa"] == pytest.approx(1 - 0.375 / 0.4375)
    assert (row["exact"], row["decided"]) == (0.5, 0.5)
    # of 8 votes 2 lose, 3 neither, 3 win, so 42 of 64 pairs differ; 4 of 8 coincidences do
    assert row["alpha"] == pytest.approx(1 - 7 * 4 / 42)


def test_agreement_pools_opponents_but_never_mixes_them() -> None:
    both = pl.concat([
        pairs(("p1", "ann", "win"), ("p1", "gpt", "win")),
        pairs(("p1", "ann", "lose"), ("p1", "gpt", "win"), opponent="bulk"),
    ])  # fmt: skip
    assert agreement_table(both, INTERVALS).select("n", "agreement").rows() == [(2, 0.5)]


def test_kinds_pool_all_pairs_of_two_annotators_votes() -> None:
    said = {"c1": "win", "c2": "tie", "gpt": "win"}
    table = agreement_groups_table(
        pairs(*(("p1", name, outcome) for name, outcome in said.items())),
        {"c1": "crowd", "c2": "crowd", "gpt": "gpt"},
        INTERVALS,
    )
    assert table.select("group_a", "group_b", "n", "agreement", "tie_rate_a", "tie_rate_b").rows() == [
        ("crowd", "crowd", 1, 0.5, 0.5, 0.5), ("crowd", "gpt", 2, 0.75, 0.5, 0.0)
    ]  # fmt: skip


def test_annotators_who_share_nothing_have_no_row() -> None:
    assert agreement_table(pairs(("p1", "ann", "win"), ("p2", "gpt", "win")), INTERVALS).is_empty()


def test_checkpoints_show_the_curve_and_the_epoch_taken() -> None:
    given = grades(
        EPOCH_GRADE,
        *(
            {"epoch": e, "prompt_id": f"p{i}", "helpfulness": h}
            for e, hs in {5: [1, 2], 10: [5, 6]}.items()
            for i, h in enumerate(hs)
        ),
    )
    curve = Curve(standing_by_grade(given, [5, 10]), given, exact_rate={5: 0.0, 10: 0.5}, perplexity={5: 7.5})
    table = checkpoints_table({"x": curve}, INTERVALS)
    assert table.columns == [
        "arm", "epoch", "n", "mean_helpfulness", "low", "high", "exact_rate", "perplexity", "by", "quality",
        "behind", "error", "selected",
    ]  # fmt: skip
    assert table.drop("low", "high").rows() == [
        ("x", 5, 2, 1.5, 0.0, 7.5, "grade", 1.5, 4.0, 0.0, 0),
        ("x", 10, 2, 5.5, 0.5, None, "grade", 5.5, 0.0, 0.0, 1),
    ]


def test_an_epoch_without_grades_has_empty_numbers() -> None:
    given = grades(EPOCH_GRADE, {"epoch": 5, "prompt_id": "p1", "unscored_reason": "no_reference"})
    table = checkpoints_table({"x": Curve(standing_by_grade(given, [5]), given, {5: None}, {5: 7.5})}, INTERVALS)
    assert table.rows() == [("x", 5, 0, None, None, None, None, 7.5, "grade", None, None, None, 1)]


def test_grades_have_shares_over_the_graded_and_safety_over_the_asked() -> None:
    given = grades(
        GRADE,
        {"prompt_id": "p1", "annotator": "j", "helpfulness": 6, "outcome": "Excellent", "safe": True},
        {"prompt_id": "p2", "annotator": "j", "helpfulness": 4, "outcome": "Pass", "safe": False},
        {"prompt_id": "p3", "annotator": "j", "helpfulness": 1, "outcome": "Fail"},
        {"prompt_id": "p4", "annotator": "j", "helpfulness": 1, "outcome": "Fail"},
        {"prompt_id": "p5", "annotator": "j", "unscored_reason": "empty"},
        {"prompt_id": "p1", "annotator": "k", "helpfulness": 3, "outcome": "Pass"},
    )
    table = grades_table({"x": given}, INTERVALS)
    assert table.columns == [
        "responder", "annotator", "n", "mean_helpfulness", "low", "high", "fail_rate", "pass_rate", "excellent_rate",
        "n_safety", "safe_rate",
    ]  # fmt: skip
    assert table.drop("low", "high").rows() == [
        ("x", "j", 4, 3.0, 0.5, 0.25, 0.25, 2, 0.5),
        ("x", "k", 1, 3.0, 0.0, 1.0, 0.0, 0, None),
    ]


def test_equal_lengths_are_those_of_the_two_answers_compared() -> None:
    # the longer answer wins mostly, whoever gave it: the sum of both lengths says nothing, their difference all
    longer = [i % 3 > 0 for i in range(60)]
    wins = [is_longer != (i % 10 == 0) for i, is_longer in enumerate(longer)]
    rows = [(f"p{i}", 0, "arm", "other", "j", "win" if won else "lose") for i, won in enumerate(wins)]
    said = pl.DataFrame(rows, schema=PAIRS, orient="row")
    keys = [(f"p{i}", 0) for i in range(60)]
    answers = {
        "arm": {key: Answer("x" * (200 if more else 100), "eot") for key, more in zip(keys, longer, strict=True)},
        "other": {key: Answer("x" * (100 if more else 200), "eot") for key, more in zip(keys, longer, strict=True)},
    }
    row = win_rate_table(said, answers, INTERVALS).row(0, named=True)
    apart = [100 if more else -100 for more in longer]
    by_hand = length_controlled([float(won) for won in wins], apart, [key[0] for key in keys], confidence=0.95)
    assert by_hand is not None
    assert row["length_controlled"] == pytest.approx(by_hand.rate)
    assert row["win_rate"] > 0.6
    assert abs(row["length_controlled"] - 0.5) < 0.1
    assert (row["chars"], row["opponent_chars"]) == (pytest.approx(500 / 3), pytest.approx(400 / 3))
