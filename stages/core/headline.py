"""headline: say in a sentence or two what a run shows, with its numbers and intervals.

The sentences are written from the score tables, so they are right for any run: checkable answers come first, because
they need no judge; without them the verdicts, and without those the grades.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

THIN = "\u202f"  # narrow no-break space, between a number and its unit

_VERBS = {"exact": "answers", "contains": "names the right value in", "finished": "finishes"}


class Cast(NamedTuple):
    """Who takes part in a run, the judged arm first."""

    judged: str
    arms: tuple[str, ...]
    opponents: tuple[str, ...]
    untuned: tuple[str, ...]  # opponents that are the base model itself
    n_examples: Mapping[str, int]  # that each arm was trained on
    annotators: tuple[str, ...]  # of comparisons, the one to believe first
    confidence: float

    @property
    def responders(self) -> tuple[str, ...]:
        """Arms and opponents, each once."""
        return tuple(dict.fromkeys((self.judged, *self.arms, *self.opponents)))

    def called(self, name: str) -> str:
        """A name with what one has to know of it: `curated (360 examples)`."""
        if name in self.untuned:
            return f"{name} (the untuned model)"
        return f"{name} ({self.n_examples[name]:,} examples)" if name in self.n_examples else name


def percent(share: float) -> str:
    """Write a share in percent, with a decimal only where rounding would say all or nothing.

    >>> percent(0.8367).replace(THIN, " "), percent(0.9967).replace(THIN, " "), percent(0).replace(THIN, " ")
    ('84 %', '99.7 %', '0 %')
    """
    return f"{_number(share)}{THIN}%"


def bounds(low: float | None, high: float | None) -> str:
    """Write an interval of shares in percent; empty where there is none.

    >>> bounds(0.79, 0.88)
    '[79, 88]'
    """
    return "" if low is None or high is None else f"[{_number(low)}, {_number(high)}]"


def signed(value: float, digits: int = 0) -> str:
    """Write a number with its sign, and 0 without one.

    >>> signed(-2.04, 1), signed(17.2), signed(-0.2)
    ('−2.0', '+17', '0')
    """
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text[1:] if not text.strip("+−0.") else text


def headline(
    cast: Cast, *, accuracy: pl.DataFrame, difference: pl.DataFrame, pairwise: pl.DataFrame, grades: pl.DataFrame
) -> list[str]:
    """Give one or two sentences; the tables are those of metrics/score."""
    exact = _rows(accuracy.filter(measure="exact"), "responder", cast.responders)
    if cast.judged in exact:
        return [_accuracy(cast, exact), *_differences(cast, difference)]
    verdicts = _verdicts(cast, pairwise)
    if verdicts:
        return [verdicts]
    rows = _rows(grades.drop_nulls("mean_helpfulness"), "responder", cast.responders)
    if cast.judged in rows:
        return [_grades(cast, rows)]
    return [f"{cast.called(cast.judged)} was trained and has answered; nothing has judged the answers yet."]


def _accuracy(cast: Cast, exact: Mapping[str, dict[str, float]]) -> str:
    first = exact[cast.judged]
    told = [
        f"{cast.called(cast.judged)} answers {_rate(first)} of {first['n']:,.0f} checkable test prompts exactly",
        *(f"{cast.called(name)} {_rate(row)}" for name, row in exact.items() if name != cast.judged),
    ]
    return "; ".join(told) + "."


def _differences(cast: Cast, difference: pl.DataFrame) -> list[str]:
    """Compare the judged arm with the other arms, each where a paired difference is known."""
    known = difference.drop_nulls().filter(a=cast.judged)
    exact, contains = (_rows(known.filter(measure=measure), "b", cast.responders) for measure in ("exact", "contains"))
    told = [
        _difference(cast.judged, name, row) + _in_contains(contains.get(name))
        for name, row in exact.items()
        if name not in cast.untuned
    ]
    return ["; ".join(told) + "."] if told else []


def _difference(judged: str, other: str, row: Mapping[str, float]) -> str:
    points, low, high = (100 * row[key] for key in ("difference", "low", "high"))
    if low <= 0 <= high:
        told = f"{signed(points)} points [{signed(low)}, {signed(high)}]"
        return f"the difference of {told} between {judged} and {other} is not clear of 0"
    near, far = sorted((abs(low), abs(high)))
    return f"{judged} is {abs(points):.0f} points {'above' if points > 0 else 'below'} {other} [{near:.0f}, {far:.0f}]"


def _in_contains(row: Mapping[str, float] | None) -> str:
    """How much of a difference is left where the right value may stand anywhere in an answer: the rest is form."""
    if row is None:
        return ""
    points, low, high = (100 * row[key] for key in ("difference", "low", "high"))
    return f", and {signed(points)} [{signed(low)}, {signed(high)}] counting answers that hold the right value anywhere"


def _verdicts(cast: Cast, pairwise: pl.DataFrame) -> str:
    for annotator in cast.annotators:
        told = [_verdict(cast, name, pairwise.filter(annotator=annotator, opponent=name)) for name in cast.opponents]
        told = [part for part in told if part]
        if told:
            return f"{cast.called(cast.judged)}, judged by {annotator}: " + "; ".join(told) + "."
    return ""


def _verdict(cast: Cast, opponent: str, rows: pl.DataFrame) -> str:
    by = _rows(rows, "outcome", ("win", "tie", "inconsistent", "lose"))
    if "win" not in by or "lose" not in by:
        return ""
    win, lose = by["win"], by["lose"]
    return f"against {cast.called(opponent)} it wins {_rate(win)} and loses {_rate(lose)} of {win['n']:,.0f} prompts"


def _grades(cast: Cast, rows: Mapping[str, dict[str, float]]) -> str:
    told = [
        f"{cast.called(name)} {row['mean_helpfulness']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        for name, row in rows.items()
    ]
    return "Mean helpfulness from 1 to 6: " + "; ".join(told) + "."


def _rows(frame: pl.DataFrame, key: str, order: Sequence[str]) -> dict[str, dict[str, float]]:
    """The first row of each key, in `order`."""
    rows = {row[key]: row for row in reversed(list(frame.iter_rows(named=True)))}
    return {name: rows[name] for name in order if name in rows}


def _rate(row: Mapping[str, float]) -> str:
    return f"{percent(row['rate'])} {bounds(row['low'], row['high'])}".strip()


def _number(share: float) -> str:
    value = 100 * share
    whole = f"{value:.0f}"
    return f"{value:.1f}" if whole in ("0", "100") and value not in (0, 100) else whole
