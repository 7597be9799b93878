"""people: people's verdicts, held against the answers of this run.

A file may hold verdicts on other contestants, prompts or older answers. Only those on this run's answers count; the
rest is counted and left out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import polars as pl

from stages.common.errors import InputError
from stages.core.judging import Answer
from stages.core.preferences import ITEM
from stages.core.presentations import Key

PERSON_VERDICT: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "sample": pl.Int32(),
    "a": pl.String(),
    "b": pl.String(),
    "annotator": pl.String(),
    "preference": pl.String(),  # a, b, tie
    "response_a": pl.String(),  # null: not said
    "response_b": pl.String(),
}


PEOPLE = "people"
_KINDS = "human|person|people|expert|author|annotator|crowd|rater|worker|labeler|evaluator|(?:arena_)?user"
_PERSON = re.compile(rf"(?i)({_KINDS})s?[ ._-]?\d*")


def group_of(name: str) -> str | None:
    """The kind of people that a name says, e.g. `author` of `author_2`; None if it is not a person's by its form.

    >>> group_of("Expert_12"), group_of("annotator1"), group_of("gpt-4")
    ('expert', 'annotator', None)
    """
    found = _PERSON.fullmatch(name)
    return found[1].lower() if found else None


def kinds_of(names: Iterable[str], persons: Set[str], panels: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The kind of each annotator: of a person the first panel that it fits, or what its name says; a machine's itself.

    Args:
        names: of annotators.
        persons: which of them are people.
        panels: patterns of names, by panel; * is any text.

    >>> kinds_of(["ann", "bo", "crowd_1", "gpt"], {"ann", "bo", "crowd_1"}, {"experts": ["an*"]})
    {'ann': 'experts', 'bo': 'people', 'crowd_1': 'crowd', 'gpt': 'gpt'}
    """
    return {name: _kind(name, panels) if name in persons else name for name in sorted(names)}


def _kind(person: str, panels: Mapping[str, Sequence[str]]) -> str:
    fitting = (kind for kind, patterns in panels.items() if any(fnmatchcase(person, one) for one in patterns))
    return next(fitting, None) or group_of(person) or PEOPLE


def pooled(pairs: pl.DataFrame, kinds: Mapping[str, str]) -> pl.DataFrame:
    """The rows (as `preferences.resolve` gives them) of each kind of several annotators, as those of `all <kind>`."""
    several = {kind for kind, n in Counter(kinds.values()).items() if n > 1}
    named = pairs.with_columns(pl.col("annotator").replace_strict(dict(kinds), return_dtype=pl.String))
    return named.filter(pl.col("annotator").is_in(several)).with_columns(
        pl.format("all {}", "annotator").alias("annotator")
    )


class Current(NamedTuple):
    """Verdicts that count (with `unscored_reason`, null), and how many of them all do: n_used, n_other, n_stale."""

    verdicts: pl.DataFrame
    counts: dict[str, int]


def current(
    people: pl.DataFrame, answers: Mapping[str, Mapping[Key, Answer]], *, arm: str, opponents: Sequence[str]
) -> Current:
    """The verdicts on this run's answers, with the judged arm as `a`.

    Args:
        people: PERSON_VERDICT rows.
        answers: by contestant.
        arm: the judged arm.
        opponents: whom it is judged against.

    Raises:
        InputError: a person judged a pair twice.
    """
    turned = orient(people, a=arm)
    states = [_state(row, answers, arm=arm, opponents=opponents) for row in turned.iter_rows(named=True)]
    counts = {f"n_{state}": states.count(state) for state in ("used", "other", "stale")}
    used = turned.filter(pl.Series([state == "used" for state in states], dtype=pl.Boolean))
    twice = used.filter(used.select(*ITEM, "annotator").is_duplicated())
    if not twice.is_empty():
        item = twice.row(0, named=True)
        raise InputError(
            f"data/annotations: a person judges a pair once, got two verdicts of {item['annotator']!r} on "
            f"{item['prompt_id']!r}, sample {item['sample']}, against {item['b']!r}; remove one"
        )
    return Current(used.with_columns(pl.lit(None, pl.String).alias("unscored_reason")), counts)


def orient(verdicts: pl.DataFrame, *, a: str) -> pl.DataFrame:
    """Verdicts with `a` as the first contestant: rows that name it second are turned round, others stay.

    Args:
        verdicts: columns a, b, preference, and pairs of columns that end in _a and _b.
        a: who is to stand first.
    """
    turned = (pl.col("b") == a) & (pl.col("a") != a)
    suffixed = [name.removesuffix("_a") for name in verdicts.columns if name.endswith("_a")]
    pairs = [("a", "b"), *((f"{name}_a", f"{name}_b") for name in suffixed)]
    swaps = [
        pl.when(turned).then(other).otherwise(name).alias(name) for pair in pairs for name, other in (pair, pair[::-1])
    ]
    other_side = pl.col("preference").replace({"a": "b", "b": "a"})
    return verdicts.with_columns(*swaps, pl.when(turned).then(other_side).otherwise("preference").alias("preference"))


def _state(
    row: Mapping[str, Any], answers: Mapping[str, Mapping[Key, Answer]], *, arm: str, opponents: Sequence[str]
) -> str:
    key = (row["prompt_id"], row["sample"])
    if row["a"] != arm or row["b"] not in opponents or any(key not in answers[row[side]] for side in "ab"):
        return "other"
    same = (row[f"response_{side}"] in (None, answers[row[side]][key].text) for side in "ab")
    return "used" if all(same) else "stale"
