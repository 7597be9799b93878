"""figures: turn the score tables into what the report's page shows, row by row.

Each function gives plain rows, with the drawing of the row where it has one. Nothing is made up for what is absent: a
measure that no row has is not given, and a cell that is null stays None.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from stages.core import paper
from stages.core.charts import (
    N_COLOURS,
    Segment,
    Series,
    Whisker,
    axis,
    interval_bar,
    line_chart,
    stacked_bar,
)
from stages.core.funnel import Flow
from stages.core.headline import Cast, bounds, percent, signed
from stages.core.intervals import minimum_detectable
from stages.core.score_tables import POWER

Row = dict[str, Any]

N_LOSS_POINTS = 100  # of each arm's curve; a point is the mean over its steps

OUTCOMES = {
    "win": "win",
    "tie": "tie",
    "inconsistent": "depends on order",
    "lose": "loss",
    "unscored": "unscored",
    "not_applicable": "does not apply",
}
_STACK = ("win", "tie", "inconsistent", "lose")
_MEASURES = {
    "exact": "the whole answer is right, and ended",
    "contains": "the right value stands in it",
    "finished": "the model ended its answer",
}
_QUALITY = {"grade": "mean helpfulness, 1 to 6", "pairs": "Bradley-Terry strength", "perplexity": "held-out perplexity"}
_RULES = {  # stages/core/checkpoints.py
    "grade": "the earliest whose mean grade on the dev prompts is within one paired standard error of the best",
    "pairs": "the earliest whose Bradley-Terry strength on the dev prompts is within one standard error of the best",
    "perplexity": "the one with the lowest held-out perplexity",
}
_FLOW = {"kept": "kept", "repeat": "repeats", "ruled-out": "dropped by rules"}


def colours(cast: Cast) -> dict[str, int]:
    """The colour of each responder, the same all over the page."""
    return {name: index % N_COLOURS for index, name in enumerate(cast.responders)}


def key_figures(cast: Cast, accuracy: pl.DataFrame) -> list[Row]:
    """Exact answers of each responder, for the large figures under the headline."""
    return _by(accuracy.filter(measure="exact"), "responder", cast.responders)


def flow_bar(flow: Flow) -> Markup:
    """One source's rows as shares of its rows in."""
    parts = {"kept": flow.n_kept, "repeat": flow.n_repeats, "ruled-out": flow.n_ruled_out}
    total = max(1, flow.n_in)
    return stacked_bar(
        [
            Segment(kind, n / total, percent(n / total), f"{_FLOW[kind]}: {n:,} of {flow.n_in:,}")
            for kind, n in parts.items()
            if n
        ]
    )


def thin_losses(losses: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Average each arm's loss over runs of steps, weighted by supervised tokens.

    Args:
        losses: step, epoch, loss, n_supervised_tokens by arm.

    Returns:
        arm, step (the last of its run), epoch, loss; at most N_LOSS_POINTS an arm.
    """
    weight = pl.col("n_supervised_tokens")
    thinned = [
        frame.sort("step")
        .with_row_index("row")
        .group_by(pl.col("row") // -(-max(1, len(frame)) // N_LOSS_POINTS), maintain_order=True)
        .agg(pl.col("step", "epoch").last(), loss=(pl.col("loss") * weight).sum() / weight.sum())
        .select(pl.lit(arm).alias("arm"), "step", "epoch", "loss")
        for arm, frame in losses.items()
    ]
    schema = {"arm": pl.String, "step": pl.Int64, "epoch": pl.Float64, "loss": pl.Float64}
    return pl.concat([pl.DataFrame(schema=schema), *thinned])


def loss_chart(loss: pl.DataFrame, cast: Cast) -> Markup | None:
    """Every arm's training loss by step; None without any."""
    colour = colours(cast)
    curves = {str(arm): frame for (arm,), frame in loss.drop_nulls().group_by("arm", maintain_order=True)}
    series = [
        Series(arm, colour[arm], frame["step"].to_list(), frame["loss"].to_list()) for arm, frame in curves.items()
    ]
    return line_chart(series, x_label="optimizer step", y_label="training loss, nats a token") if series else None


def checkpoints(table: pl.DataFrame, cast: Cast) -> Iterator[Row]:
    """Each arm's two curves of Figure 9: judged quality and held-out perplexity by epoch, on axes alike.

    Quality is the grade; where nothing is graded, the strength that the choice went by. `why` the marked epoch was kept
    follows from what it was chosen by (stages/core/checkpoints.py).
    """
    grade_span = _span(table, "mean_helpfulness", "low", "high")
    strength_span = _span(table.filter(by="pairs"), "quality")
    perplexity_span = _span(table, "perplexity")
    for arm in cast.arms:
        rows = table.filter(arm=arm).sort("epoch")
        if len(rows):
            colour, by = colours(cast)[arm], rows["by"][0]
            if by == "pairs" and rows["mean_helpfulness"].is_null().all():
                quality = _epoch_chart(rows, arm, colour, "quality", _QUALITY[by], strength_span)
            else:
                quality = _epoch_chart(rows, arm, colour, "mean_helpfulness", _QUALITY["grade"], grade_span)
            yield {
                "arm": arm,
                "quality": quality,
                "perplexity": _epoch_chart(rows, arm, colour, "perplexity", _QUALITY["perplexity"], perplexity_span),
                "selected": rows.filter(pl.col("selected") == 1)["epoch"].to_list(),
                "why": _why_kept(rows, by),
            }


def power(*, confidence: float) -> Row:
    """What the paper's 300 prompts can show, a fifth of them ties, in points; and with which power."""
    n, n_ties = 300, 60
    value = [0.5] * n_ties + [0.0, 1.0] * ((n - n_ties) // 2)
    shown = minimum_detectable(value, range(n), confidence=confidence, power=POWER)
    return {"power": POWER, "n": n, "points": 100 * shown}


def accuracy(table: pl.DataFrame, cast: Cast) -> Iterator[Row]:
    """Shares of checkable prompts, a block a measure."""
    colour = colours(cast)
    for measure, meaning in _MEASURES.items():
        rows = _by(table.filter(measure=measure), "responder", cast.responders)
        if rows:
            bars = [{**row, "bar": _rate_bar(row, colour[row["responder"]])} for row in rows]
            yield {"measure": measure, "meaning": meaning, "rows": bars, "axis": axis(["0", "50 %", "100 %"])}


def differences(table: pl.DataFrame, cast: Cast) -> Row:
    """Paired differences in points, all on one axis about 0."""
    rows = list(table.drop_nulls("difference").iter_rows(named=True))
    widest = max(
        (abs(row[key]) for row in rows for key in ("difference", "low", "high") if row[key] is not None), default=0
    )
    reach = next(limit for limit in (0.1, 0.25, 0.5, 1) if widest <= limit or limit == 1)
    colour = colours(cast)
    return {
        "rows": [{**row, **_difference(row, colour.get(row["a"], 0), reach)} for row in rows],
        "axis": axis([signed(-100 * reach), "0", signed(100 * reach)]),
    }


def pairwise(
    table: pl.DataFrame, cast: Cast, *, counts: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Iterator[Row]:
    """Win, tie and lose against each opponent, a block an annotator, the first of the parameters first.

    Args:
        table: the score's pairwise table.
        cast: who takes part.
        counts: n_unscored and n_not_applicable by opponent and annotator.
    """
    for annotator in dict.fromkeys([*cast.annotators, *table["annotator"]]):
        found = table.filter(annotator=annotator)
        by = {name: _by(found.filter(opponent=name), "outcome", _STACK) for name in cast.opponents}
        rows = [
            {"opponent": name, **_preference(shares), **_left_out(counts.get(name, {}).get(annotator, {}))}
            for name, shares in by.items()
            if shares
        ]
        if rows:
            yield {"annotator": annotator, "rows": rows}


def paper_pairwise() -> Iterator[Row]:
    """The paper's figures, drawn alike."""
    for row in paper.PREFERENCES:
        shares = {"win": row.win / 100, "tie": row.tie / 100, "lose": row.lose / 100}
        segments = [
            Segment(kind, share, percent(share), f"{OUTCOMES[kind]} {percent(share)}") for kind, share in shares.items()
        ]
        yield {"opponent": row.opponent, "annotator": row.annotator, "bar": stacked_bar(segments)}


def win_rates(table: pl.DataFrame, cast: Cast) -> Iterator[Row]:
    """How often the judged arm is preferred to each opponent, by annotator, the first of the parameters first."""
    colour = colours(cast)[cast.judged]
    for annotator in dict.fromkeys([*cast.annotators, *table["annotator"]]):
        for row in _by(table.filter(annotator=annotator), "opponent", cast.opponents):
            yield {**row, "bar": _win_rate_bar(row, colour)}


def strengths(table: pl.DataFrame, cast: Cast) -> Iterator[Row]:
    """Bradley-Terry strengths, a block an annotator, on axes alike; none of two contestants: that is a win rate."""
    ends = [abs(value) for column in ("low", "high") for value in table[column].drop_nulls()]
    reach = float(max(1, -(-max(ends, default=0) // 1)))
    colour = colours(cast)
    for annotator in dict.fromkeys([*cast.annotators, *table["annotator"]]):
        rows = [
            {
                **row,
                "says": signed(row["strength"], 2),
                "interval": _signed_interval(row),
                "bar": _strength_bar(row, colour, reach),
            }
            for row in table.filter(annotator=annotator).iter_rows(named=True)
        ]
        if len(rows) > 2:
            yield {"annotator": annotator, "rows": rows, "axis": axis([signed(-reach), "0", signed(reach)])}


def agreement(groups: pl.DataFrame, each: pl.DataFrame) -> Iterator[Row]:
    """Kinds of annotators, and below those of people every two of them; `name` says who."""
    for row in groups.iter_rows(named=True):
        yield {**row, "name": f"{row['group_a']} – {row['group_b']}", "is_kind": True}
    kinds = {frozenset((row["group_a"], row["group_b"])) for row in groups.iter_rows(named=True)}
    for row in each.iter_rows(named=True):
        if frozenset((row["annotator_a"], row["annotator_b"])) not in kinds:
            yield {**row, "name": f"{row['annotator_a']} – {row['annotator_b']}", "is_kind": False}


def grades(table: pl.DataFrame, shares: pl.DataFrame, cast: Cast) -> Iterator[Row]:
    """Absolute grades of each responder by each annotator; `shares` by name, each with its interval."""
    colour = colours(cast)
    for name in cast.responders:
        for row in table.filter(responder=name).iter_rows(named=True):
            some = shares.filter(responder=name, annotator=row["annotator"])
            by_name = {share["share"]: share for share in some.iter_rows(named=True)}
            yield {
                **row, "bar": _outcome_bar(row), "scale": _helpfulness_bar(row, colour[name]), "shares": by_name
            }  # fmt: skip


def spaced_examples(examples: pl.DataFrame, n: int) -> dict[str, list[Row]]:
    """At most `n` rows of each group, evenly spaced in the order of ids."""
    groups = examples.sort("group", "id").partition_by("group", maintain_order=True)
    return {group["group"][0]: group[_spaced(len(group), n)].to_dicts() for group in groups}


def _spaced(n_rows: int, n: int) -> list[int]:
    """At most `n` row numbers, evenly spaced from the first on.

    >>> _spaced(10, 3), _spaced(2, 3)
    ([0, 3, 6], [0, 1])
    """
    return sorted({place * n_rows // n for place in range(n)})


def _by(table: pl.DataFrame, key: str, order: Sequence[str]) -> list[Row]:
    """The rows of a table in the order of their key; a key that no row has is left out."""
    rows = {row[key]: row for row in table.iter_rows(named=True)}
    return [rows[name] for name in order if name in rows]


def _span(table: pl.DataFrame, *columns: str) -> tuple[float, float] | None:
    values = [value for column in columns for value in table[column].drop_nulls()]
    return (min(values), max(values)) if values else None


def _epoch_chart(
    rows: pl.DataFrame, arm: str, colour: int, column: str, label: str, span: tuple[float, float] | None
) -> Markup | None:
    points = rows.drop_nulls(column)
    if not len(points):
        return None
    low, high = (points[end].to_list() if column == "mean_helpfulness" else () for end in ("low", "high"))
    chosen = points["selected"].to_list()
    epochs = points["epoch"].to_list()
    series = Series(arm, colour, epochs, points[column].to_list(), low, high, chosen.index(1) if 1 in chosen else None)
    return line_chart(
        [series], x_label="epoch", y_label=label, x_ticks=epochs if len(epochs) <= 12 else None, y_span=span
    )


def _why_kept(rows: pl.DataFrame, by: str) -> str:
    if len(rows) == 1:
        return "the only candidate"
    if rows["quality"].is_null().all():
        return "the earliest candidate, as nothing told them apart"
    return _RULES[by]


def _rate_bar(row: Row, colour: int) -> Markup:
    title = f"{row['responder']}: {percent(row['rate'])} {bounds(row['low'], row['high'])} of {row['n']:,}"
    return interval_bar(row["rate"], low=row["low"], high=row["high"], colour=colour, title=title)


def _win_rate_bar(row: Row, colour: int) -> Markup:
    title = f"preferred to {row['opponent']}: {percent(row['win_rate'])} {bounds(row['low'], row['high'])}"
    return interval_bar(row["win_rate"], low=row["low"], high=row["high"], colour=colour, title=title)


def _strength_bar(row: Row, colour: Mapping[str, int], reach: float) -> Markup:
    title = f"{row['responder']}: {signed(row['strength'], 2)} {_signed_interval(row)}"
    low, high = (None, None) if row["low"] == row["high"] else (row["low"], row["high"])
    shade = colour.get(row["responder"], 0)
    return interval_bar(row["strength"], low=low, high=high, colour=shade, title=title, span=(-reach, reach))


def _signed_interval(row: Row) -> str:
    return "" if row["low"] == row["high"] else f"[{signed(row['low'], 2)}, {signed(row['high'], 2)}]"


def _difference(row: Row, colour: int, reach: float) -> Row:
    low, high = row["low"], row["high"]
    known = low is not None and high is not None
    points = f"{signed(100 * row['difference'], 1)} points"
    interval = f"[{signed(100 * low, 1)}, {signed(100 * high, 1)}]" if known else ""
    title = f"{row['a']} − {row['b']}, {row['measure']}: {points} {interval}"
    bar = interval_bar(row["difference"], low=low, high=high, colour=colour, title=title, span=(-reach, reach))
    return {"points": points, "interval": interval, "bar": bar, "is_clear": not known or not low <= 0 <= high}


def _preference(shares: Sequence[Row]) -> Row:
    words = [
        f"{OUTCOMES[row['outcome']]} {percent(row['rate'])} {bounds(row['low'], row['high'])}".strip() for row in shares
    ]
    segments = [
        Segment(row["outcome"], row["rate"], percent(row["rate"]), text)
        for row, text in zip(shares, words, strict=True)
    ]
    known = {row["outcome"]: row for row in shares if row["low"] is not None and row["high"] is not None}
    whiskers = [Whisker("win", row["low"], row["high"]) for kind, row in known.items() if kind == "win"]
    # losses grow from the right
    whiskers += [Whisker("lose", 1 - row["high"], 1 - row["low"]) for kind, row in known.items() if kind == "lose"]
    return {"n": shares[0]["n"], "bar": stacked_bar(segments, whiskers=whiskers), "words": words}


def _left_out(counts: Mapping[str, Any]) -> Row:
    return {key: counts.get(key, 0) for key in ("n_unscored", "n_not_applicable")}


def _outcome_bar(row: Row) -> Markup | None:
    shares = {name: row[f"{name}_rate"] for name in ("excellent", "pass", "fail")}
    if any(share is None for share in shares.values()):
        return None
    return stacked_bar(
        [Segment(name, share, percent(share), f"{name} {percent(share)}") for name, share in shares.items()]
    )


def _helpfulness_bar(row: Row, colour: int) -> Markup | None:
    mean = row["mean_helpfulness"]
    if mean is None:
        return None
    title = f"{row['responder']}: mean helpfulness {mean:.2f}"
    return interval_bar(mean, low=row["low"], high=row["high"], colour=colour, title=title, span=(1, 6))
