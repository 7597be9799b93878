"""score_tables: the tables of metrics/score, a function each.

In each table n is what the rate or mean beside it is over. A number that does not exist is null; a rate of nothing has
no row. Rows are in the order of params.yaml for arms and opponents, by name for annotators.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from stages.core.accuracy import MEASURES
from stages.core.checkpoints import choose_epoch
from stages.core.intervals import Estimate, Intervals
from stages.core.preferences import OUTCOMES, scored

COUNT, NUMBER, TEXT = pl.Int64(), pl.Float64(), pl.String()
INTERVAL: dict[str, pl.DataType] = {"low": NUMBER, "high": NUMBER}
RATE: dict[str, pl.DataType] = {"n": COUNT, "rate": NUMBER, **INTERVAL}

PAIRWISE: dict[str, pl.DataType] = {"opponent": TEXT, "annotator": TEXT, "outcome": TEXT, **RATE}
ACCURACY: dict[str, pl.DataType] = {"responder": TEXT, "measure": TEXT, **RATE}
DIFFERENCE: dict[str, pl.DataType] = {
    "a": TEXT,
    "b": TEXT,
    "measure": TEXT,
    "n": COUNT,
    "difference": NUMBER,
    **INTERVAL,
}
CHECKPOINTS: dict[str, pl.DataType] = {
    "arm": TEXT,
    "epoch": COUNT,
    "n": COUNT,
    "mean_helpfulness": NUMBER,
    **INTERVAL,
    "exact_rate": NUMBER,
    "perplexity": NUMBER,
    "selected": COUNT,  # 0 or 1
}
GRADES: dict[str, pl.DataType] = {
    "responder": TEXT,
    "annotator": TEXT,
    "n": COUNT,
    "mean_helpfulness": NUMBER,
    **INTERVAL,
    "fail_rate": NUMBER,
    "pass_rate": NUMBER,
    "excellent_rate": NUMBER,
    "n_safety": COUNT,
    "safe_rate": NUMBER,
}


class Curve(NamedTuple):
    """What is known of one arm's candidate epochs."""

    grades: pl.DataFrame  # schema.EPOCH_GRADE
    exact_rate: Mapping[int, float | None]  # by epoch
    perplexity: Mapping[int, float]  # by epoch


def accuracy_table(measured: Mapping[str, pl.DataFrame], intervals: Intervals) -> pl.DataFrame:
    """Every responder's measures (stages/core/accuracy.py); a responder without checkable prompts has no rows."""
    rows = []
    for responder, answers in measured.items():
        for measure in MEASURES if answers.height else ():
            rate = intervals.estimate(answers[measure], answers["prompt_id"], scale=(0, 1))
            rows.append((responder, measure, *rate))
    return pl.DataFrame(rows, schema=ACCURACY, orient="row")


def difference_table(
    measured: Mapping[str, pl.DataFrame], *, a: str, opponents: Sequence[str], intervals: Intervals
) -> pl.DataFrame:
    """`a` minus every opponent, paired by prompt and sample; none where they share no checkable prompt."""
    rows = []
    for b in opponents:
        paired = measured[a].join(measured[b], on=("prompt_id", "sample"), suffix="_b").sort("prompt_id", "sample")
        for measure in MEASURES if paired.height else ():
            apart = paired[measure] - paired[f"{measure}_b"]
            rows.append((a, b, measure, *intervals.estimate(apart, paired["prompt_id"], scale=(-1, 1))))
    return pl.DataFrame(rows, schema=DIFFERENCE, orient="row")


def pairwise_table(pairs: pl.DataFrame, intervals: Intervals) -> pl.DataFrame:
    """Win, tie, lose and inconsistent rates over the scored pairs, by opponent and annotator."""
    rows = []
    for (opponent, annotator), some in groups(scored(pairs), "b", "annotator"):
        for outcome in OUTCOMES:
            hits = (some["outcome"] == outcome).cast(NUMBER)
            n, rate, low, high = intervals.estimate(hits, some["prompt_id"], scale=(0, 1))
            rows.append((opponent, annotator, outcome, n, rate, low, high))
    return pl.DataFrame(rows, schema=PAIRWISE, orient="row")


def checkpoints_table(curves: Mapping[str, Curve], intervals: Intervals) -> pl.DataFrame:
    """Every arm's candidate epochs: mean grade, share of exact answers, perplexity, and which was taken."""
    rows = []
    for arm, curve in curves.items():
        selected = choose_epoch(curve.grades)
        for (epoch,), grades in groups(curve.grades, "epoch"):
            exact, perplexity = curve.exact_rate.get(epoch), curve.perplexity.get(epoch)
            rows.append((arm, epoch, *_mean_grade(grades, intervals), exact, perplexity, int(epoch == selected)))
    return pl.DataFrame(rows, schema=CHECKPOINTS, orient="row")


def grades_table(grades: Mapping[str, pl.DataFrame], intervals: Intervals) -> pl.DataFrame:
    """Mean grade and shares of the outcomes, by arm and annotator."""
    rows = []
    for arm, table in grades.items():
        for (annotator,), some in groups(table.drop_nulls("helpfulness"), "annotator"):
            shares = [(some["outcome"] == outcome).mean() for outcome in ("Fail", "Pass", "Excellent")]
            safe = some["safe"].drop_nulls()
            rows.append((arm, annotator, *_mean_grade(some, intervals), *shares, safe.len(), safe.mean()))
    return pl.DataFrame(rows, schema=GRADES, orient="row")


def _mean_grade(grades: pl.DataFrame, intervals: Intervals) -> Estimate:
    given = grades.drop_nulls("helpfulness")
    return intervals.estimate(given["helpfulness"], given["prompt_id"], scale=(1, 6))


def groups(frame: pl.DataFrame, *by: str) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    """Groups in the order of their keys."""
    groups = frame.partition_by(*by, as_dict=True, maintain_order=True)
    return iter(sorted(groups.items()))
