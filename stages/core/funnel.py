"""funnel: count rows from the dumps to the training sets, by source and by reason.

The counts are those that `quality` and `dedup` wrote; nothing is counted twice, and a source's rows in are the sum of
its rows dropped and kept.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from stages.common.errors import InputError
from stages.core.paper import TABLE_1

Counts = Mapping[str, Mapping[str, Any]]  # by source: n_in, n_kept, dropped (by rule)


class Flow(NamedTuple):
    """The way of one source's rows."""

    source: str
    n_in: int
    n_ruled_out: int
    n_repeats: int  # near-duplicates, and rows that repeat a dev or test prompt
    n_kept: int
    n_drawn: dict[str, int]  # by arm


class Reason(NamedTuple):
    """How many rows one rule dropped, by source."""

    stage: str
    rule: str
    by_source: dict[str, int]

    @property
    def n(self) -> int:
        """Over all sources."""
        return sum(self.by_source.values())


class Lengths(NamedTuple):
    """A row of Table 1; lengths are mean tokens, None where there is nothing to measure."""

    n: int
    prompt_tokens: float | None
    response_tokens: float | None
    n_trimmed: int | None


class GroupRow(NamedTuple):
    """A row of Table 1: the paper's figures and each arm's, None where there is no such row."""

    name: str
    paper: Lengths | None
    arms: dict[str, Lengths | None]


def flows(quality: Counts, dedup: Counts, samples: Mapping[str, pl.DataFrame]) -> list[Flow]:
    """Follow each source through the rules, the repeats and the draws.

    Args:
        quality: counts by source.
        dedup: counts by source; a source of which no row was left is not named.
        samples: EXAMPLE by arm, what it was trained on.

    Raises:
        InputError: the counts of a source do not add up.
    """
    drawn = {arm: dict(frame["source"].value_counts().iter_rows()) for arm, frame in samples.items()}
    return [
        _flow(source, counts, dedup.get(source, _NONE), {arm: by.get(source, 0) for arm, by in drawn.items()})
        for source, counts in quality.items()
    ]


def reasons(quality: Counts, dedup: Counts) -> list[Reason]:
    """List the rules that dropped rows, those of `quality` first, and of each stage the one that dropped most first."""
    rows = []
    for stage, metrics in (("quality", quality), ("dedup", dedup)):
        for rule in sorted({rule for counts in metrics.values() for rule in counts["dropped"]}):
            by_source = {source: counts["dropped"].get(rule, 0) for source, counts in metrics.items()}
            rows.append(Reason(stage, rule, by_source))
    return sorted((row for row in rows if row.n), key=lambda row: (row.stage == "dedup", -row.n))


def table_1(renders: Mapping[str, Mapping[str, Any]]) -> list[GroupRow]:
    """Put each arm's groups beside the paper's training set.

    Args:
        renders: token statistics by arm, as `render` writes them.
    """
    published = {row.group: row for row in TABLE_1 if row.split == "train"}
    found = [group for metrics in renders.values() for group in metrics["groups"]]
    rows = []
    for group in dict.fromkeys([*published, *found]):
        row = published.get(group)
        name = row.name if row else group.replace("_", " ")
        lengths = Lengths(row.n, row.prompt_tokens, row.response_tokens, None) if row else None
        rows.append(GroupRow(name, lengths, {arm: _lengths(metrics, group) for arm, metrics in renders.items()}))
    return rows


class Measured(NamedTuple):
    """One measure of an arm's draw, and its mean, lowest and highest in random draws of the pool, None without any."""

    value: float
    random: Mapping[str, float] | None

    @property
    def is_beyond(self) -> bool:
        """Whether no random draw has been as low or as high."""
        return self.random is not None and not self.random["min"] <= self.value <= self.random["max"]


class MeasureRow(NamedTuple):
    """A measure of every arm's draw; None where an arm has none, as of a single row."""

    name: str
    digits: int
    arms: dict[str, Measured | None]


_MEASURES = {  # keys in metrics/sample/<arm>.json: name, digits
    ("domain_entropy_bits",): ("entropy of the domains, bits", 2),
    ("coverage",): ("coverage: mean cosine of the pool to its nearest row", 3),
    ("spread",): ("spread: mean distance of a row to the nearest other", 3),
    ("response_chars", "p50"): ("median response, characters", 0),
    ("response_chars", "p95"): ("95th percentile of the responses, characters", 0),
}


def measures(draws: Mapping[str, Mapping[str, Any]]) -> list[MeasureRow]:
    """Put what `sample` measured of each arm beside the same of random draws; by arm, as the stage writes it."""
    return [
        MeasureRow(name, digits, {arm: _measured(metrics, keys) for arm, metrics in draws.items()})
        for keys, (name, digits) in _MEASURES.items()
    ]


def _measured(metrics: Mapping[str, Any], keys: tuple[str, ...]) -> Measured | None:
    value, random = metrics["measures"], metrics.get("random_draws")
    for key in keys:
        value, random = value.get(key) if value else None, random.get(key) if random else None
    return None if value is None else Measured(value, random)


_NONE: Mapping[str, Any] = {"n_in": 0, "n_kept": 0, "dropped": {}}


def _flow(source: str, rules: Mapping[str, Any], repeats: Mapping[str, Any], n_drawn: dict[str, int]) -> Flow:
    n_ruled_out, n_repeats = sum(rules["dropped"].values()), sum(repeats["dropped"].values())
    flow = Flow(source, rules["n_in"], n_ruled_out, n_repeats, repeats["n_kept"], n_drawn)
    if not flow.n_in == flow.n_ruled_out + rules["n_kept"] == flow.n_ruled_out + repeats["n_in"] == _sum(flow):
        raise InputError(
            f"metrics/quality.json and metrics/dedup.json: rows of {source!r} must be dropped or kept, "
            f"got {flow.n_in} in, {n_ruled_out} + {n_repeats} dropped, {flow.n_kept} kept; `dvc repro` makes them anew"
        )
    return flow


def _sum(flow: Flow) -> int:
    return flow.n_ruled_out + flow.n_repeats + flow.n_kept


def _lengths(metrics: Mapping[str, Any], group: str) -> Lengths | None:
    found = metrics["groups"].get(group)
    if found is None:
        return None
    return Lengths(found["n"], found["mean_prompt_tokens"], found["mean_response_tokens"], found["n_trimmed"])
