"""score_tables: the tables of metrics/score, a function each.

In each table n is what the rate or mean beside it is over. A number that does not exist is null; a rate of nothing has
no row. Rows are in the order of params.yaml for arms and opponents, by name for annotators.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple, get_args

import polars as pl

from stages.core.accuracy import MEASURES
from stages.core.bradley_terry import Comparison, strengths
from stages.core.intervals import Estimate, Intervals, minimum_detectable, wilson
from stages.core.judging import Answer, Outcome
from stages.core.length_control import length_controlled
from stages.core.position import position_bias
from stages.core.preferences import OUTCOMES, preference_values, scored
from stages.core.presentations import Key

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
WIN_RATE: dict[str, pl.DataType] = {
    "opponent": TEXT,
    "annotator": TEXT,
    "n": COUNT,
    "n_prompts": COUNT,
    "win_rate": NUMBER,  # a tie, or a pair whose orders disagree, is half a win
    **INTERVAL,
    "minimum_detectable": NUMBER,  # distance from 1/2, at power POWER
    "length_controlled": NUMBER,
    "length_controlled_low": NUMBER,
    "length_controlled_high": NUMBER,
    "chars": NUMBER,  # mean length of the judged arm's answers, in characters
    "opponent_chars": NUMBER,
}
POSITION: dict[str, pl.DataType] = {
    "annotator": TEXT,
    "n": COUNT,  # pairs with both orders scored
    "bias": NUMBER,  # -1 to 1: mean lean to the answer shown first
    **INTERVAL,
    "n_first": COUNT,  # prompts that lean to the answer shown first
    "n_second": COUNT,
    "p_value": NUMBER,  # exact sign test
}
BRADLEY_TERRY: dict[str, pl.DataType] = {
    "annotator": TEXT,
    "responder": TEXT,
    "n": COUNT,
    "strength": NUMBER,  # log-odds of being preferred to the judged arm
    **INTERVAL,
}
SHARES: dict[str, pl.DataType] = {"responder": TEXT, "annotator": TEXT, "share": TEXT, **RATE}
LENGTHS: dict[str, pl.DataType] = {"responder": TEXT, "n": COUNT, "mean_chars": NUMBER, "median_chars": NUMBER}
CHECKPOINTS: dict[str, pl.DataType] = {
    "arm": TEXT,
    "epoch": COUNT,
    "n": COUNT,
    "mean_helpfulness": NUMBER,
    **INTERVAL,
    "exact_rate": NUMBER,
    "perplexity": NUMBER,
    "by": TEXT,  # this and the next three as in schema.STANDING: what the choice went by, and its noise
    "quality": NUMBER,
    "behind": NUMBER,
    "error": NUMBER,
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


POWER = 0.8  # of the minimum detectable difference


class Curve(NamedTuple):
    """What is known of one arm's candidate epochs."""

    standing: pl.DataFrame  # schema.STANDING
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


def win_rate_table(
    pairs: pl.DataFrame, answers: Mapping[str, Mapping[Key, Answer]], intervals: Intervals
) -> pl.DataFrame:
    """How often the judged arm is preferred, as it is and at equal lengths, by opponent and annotator.

    Args:
        pairs: as `preferences.resolve` gives them.
        answers: everybody's, by name.
        intervals: how intervals are made.
    """
    rows = []
    for (opponent, annotator), some in groups(preference_values(pairs), "b", "annotator"):
        prompts, value = some["prompt_id"], some["value"]
        keys = list(some.select("prompt_id", "sample").iter_rows())
        chars = [pl.Series([len(answers[name][key].text) for key in keys]) for name in (some["a"][0], opponent)]
        n, rate, low, high = intervals.estimate(value, prompts, scale=(0, 1))
        controlled = length_controlled(value, chars[0] - chars[1], prompts, confidence=intervals.confidence)
        detectable = minimum_detectable(value, prompts, confidence=intervals.confidence, power=POWER)
        at_equal = controlled[:3] if controlled else (None, None, None)
        means = [one.mean() for one in chars]
        rows.append((opponent, annotator, n, prompts.n_unique(), rate, low, high, detectable, *at_equal, *means))
    return pl.DataFrame(rows, schema=WIN_RATE, orient="row")


def position_table(verdicts: pl.DataFrame, intervals: Intervals) -> pl.DataFrame:
    """Every annotator's lean to the answer shown first, over all opponents (schema.VERDICT)."""
    leans = {name: position_bias(some, intervals) for (name,), some in groups(verdicts, "annotator")}
    rows = [
        (name, *lean.bias, lean.n_first, lean.n_second, lean.p_value)
        for name, lean in leans.items()
        if lean is not None
    ]
    return pl.DataFrame(rows, schema=POSITION, orient="row")


def bradley_terry_table(pairs: pl.DataFrame, *, anchor: str, intervals: Intervals) -> pl.DataFrame:
    """Strengths of the judged arm (the anchor) and all that it was compared with, by annotator, the strongest first."""
    rows: list[tuple[Any, ...]] = []
    for (annotator,), some in groups(preference_values(pairs), "annotator"):
        given = [Comparison(*row) for row in some.select("prompt_id", "a", "b", "value").iter_rows()]
        rows += [(annotator, *one) for one in strengths(given, anchor=anchor, confidence=intervals.confidence)]
    return pl.DataFrame(rows, schema=BRADLEY_TERRY, orient="row")


def lengths_table(answers: Mapping[str, Mapping[Key, Answer]]) -> pl.DataFrame:
    """How long everybody's answers are, in characters; nobody without answers."""
    rows = []
    for name, given in answers.items():
        chars = pl.Series([len(answer.text) for answer in given.values()], dtype=COUNT)
        if len(chars):
            rows.append((name, len(chars), chars.mean(), chars.median()))
    return pl.DataFrame(rows, schema=LENGTHS, orient="row")


def shares_table(grades: Mapping[str, pl.DataFrame], malicious: Set[str], intervals: Intervals) -> pl.DataFrame:
    """Fail, Pass, Excellent, and safe answers, those to malicious prompts and to others also apart (s4.3, Figure 3).

    Wilson's intervals over prompts; a share of nothing has no row.
    """
    is_malicious = pl.col("prompt_id").is_in(sorted(malicious))
    rows = []
    for arm, table in grades.items():
        for (annotator,), some in groups(table, "annotator"):
            outcome, safe = some.drop_nulls("outcome"), some.drop_nulls("safe")
            shares = {name: (outcome, pl.col("outcome") == name) for name in get_args(Outcome)}
            shares |= {"safe": (safe, pl.col("safe"))}
            shares |= {"safe, malicious": (safe.filter(is_malicious), pl.col("safe"))}
            shares |= {"safe, other": (safe.filter(~is_malicious), pl.col("safe"))}
            for share, (rated, hit) in shares.items():
                if rated.height:
                    rate = int(rated.select(hit).to_series().sum()) / rated.height
                    ends = wilson(rate, n=rated["prompt_id"].n_unique(), confidence=intervals.confidence)
                    rows.append((arm, annotator, share, rated.height, rate, *ends))
    return pl.DataFrame(rows, schema=SHARES, orient="row")


def checkpoints_table(curves: Mapping[str, Curve], intervals: Intervals) -> pl.DataFrame:
    """Every arm's candidate epochs: mean grade, share of exact answers, perplexity, standing, and which was taken."""
    rows = []
    for arm, curve in curves.items():
        for epoch, *standing, taken in curve.standing.select(
            "epoch", "by", "quality", "behind", "error", "taken"
        ).iter_rows():
            grades = curve.grades.filter(pl.col("epoch") == epoch)
            exact, perplexity = curve.exact_rate.get(epoch), curve.perplexity.get(epoch)
            rows.append((arm, epoch, *_mean_grade(grades, intervals), exact, perplexity, *standing, int(taken)))
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
