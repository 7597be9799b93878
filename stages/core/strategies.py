"""strategies: in which order the rows of a group, or of a whole pool, are drawn.

LIMA's own way, by domains at a temperature, is `stages.core.strata`'s. The others give an order of rows: the first n
are the training set, those after them the held-out rows, so that the one does not depend on the other's number. Equals
come by id. Random and longest are the baselines that a clever strategy has to beat (arXiv:2410.09335, 2402.04833).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from stages.common.section import Section
from stages.core.deita import score_first
from stages.core.draws import stream, uniform_by_id
from stages.core.facility_location import facility_location
from stages.core.k_center import k_center
from stages.core.tag_coverage import most_tags_first
from stages.core.vectors import F32, I64

Strategy = Literal["lima", "random", "longest", "k_center", "facility_location", "tags", "deita"]
N_REPRESENTED = 20_000  # rows that facility_location represents; of more, a seeded sample


class Deita(Section):
    """What `deita` needs besides vectors."""

    by: Literal["score", "length"]  # the votes, as a rank within the group, or the characters of the responses
    max_cosine: float = Field(gt=0, lt=1)  # to any row taken


class Context(NamedTuple):
    """What a strategy may look at besides the rows."""

    seed: int
    deita: Deita
    encode: Callable[[pl.Series], F32]  # texts to fixed-point vectors


def order_rows(rows: pl.DataFrame, n: int, *, strategy: Strategy, context: Context) -> I64:
    """Order the first n rows (EXAMPLE, sorted by id), n at most len(rows).

    Returns:
        (n,) row numbers; fewer where no more rows qualify, which can only be with `deita`.
    """
    return _ORDERS[strategy](rows, n, context)


def texts_of(rows: pl.DataFrame) -> pl.Series:
    """The whole dialogue of each row: what its vector is of."""
    contents = pl.col("messages").list.eval(pl.element().struct.field("content")).list.join("\n")
    return rows.select(text=contents.fill_null(""))["text"]


def response_chars(rows: pl.DataFrame) -> pl.Series:
    """Characters of each row's responses together."""
    said = pl.element().filter(pl.element().struct.field("role") == "assistant").struct.field("content")
    return rows.select(n=pl.col("messages").list.eval(said.str.len_chars()).list.sum())["n"]


def _random(rows: pl.DataFrame, n: int, context: Context) -> I64:
    """Uniform. Cost: a hash a row."""
    return _by(uniform_by_id(rows["id"], seed=context.seed, purpose="within"))[:n]


def _longest(rows: pl.DataFrame, n: int, context: Context) -> I64:
    """The longest responses (Zhao et al. 2024, Long is more, arXiv:2402.04833; tokens there, characters here)."""
    return _by(-response_chars(rows).cast(pl.Float64).to_numpy())[:n]


def _k_center(rows: pl.DataFrame, n: int, context: Context) -> I64:
    """Farthest first; source and cost in `stages.core.k_center`."""
    return k_center(context.encode(texts_of(rows)), n)


def _facility_location(rows: pl.DataFrame, n: int, context: Context) -> I64:
    """The rows that stand for all, or for a sample; source and cost in `stages.core.facility_location`."""
    vectors = context.encode(texts_of(rows))
    if len(rows) <= N_REPRESENTED:
        return facility_location(vectors, n)
    rng = stream(seed=context.seed, purpose="represented")
    return facility_location(vectors, n, represented=np.sort(rng.choice(len(rows), N_REPRESENTED, replace=False)))


def _tags(rows: pl.DataFrame, n: int, context: Context) -> I64:
    """InsTag's greedy over the domain and the source's own tags, higher votes first among as many; see its module."""
    by_votes = _by(-rows["score"].cast(pl.Float64).fill_null(-np.inf).to_numpy())
    tags = [frozenset((f"domain {domain}", *(own or ()))) for domain, own in rows.select("domain", "tags").iter_rows()]
    return by_votes[most_tags_first([tags[row] for row in by_votes], n)]


def _deita(rows: pl.DataFrame, n: int, context: Context) -> I64:
    """Best score first, near ones passed over; source and cost in `stages.core.deita`."""
    if context.deita.by == "length":
        values = response_chars(rows).cast(pl.Float64)
    else:  # votes of two groups do not compare; a row without votes stands in the middle of its own
        rank = (pl.col("score").rank("average") / pl.col("score").count()).over("group").fill_null(0.5)
        values = rows.select(value=rank)["value"]
    vectors = context.encode(texts_of(rows))
    return score_first(vectors, _by(-values.to_numpy()), n, max_cosine=context.deita.max_cosine)


def _by(values: np.ndarray) -> I64:
    """Row numbers by value, the earlier first among equals."""
    return np.argsort(values, kind="stable").astype(np.int64)


_ORDERS: dict[str, Callable[[pl.DataFrame, int, Context], I64]] = {
    "random": _random,
    "longest": _longest,
    "k_center": _k_center,
    "facility_location": _facility_location,
    "tags": _tags,
    "deita": _deita,
}
