"""strata: draw each group's quota, and what is held out, from one pool.

LIMA s2.1: exchanges are drawn at temperature 3 and within one the highest-scored questions (the answer's votes are a
threshold, which `quality` holds it to); of r/WritingPrompts the most upvoted posts; a wikiHow category is drawn, then
an article in it; s2.2: 50 tasks, one example each. *Our reading*: p_i is proportional to n_i^(1/tau); rows whose
prompts have as many votes come by the votes on the response, then in the order of their ids; unknown votes come last.

What runs out, by rule: a *domain* that has no row left leaves its group's draw, and the others give more. A *group*
that has fewer rows than its quota is an error; or, where that is allowed, it gives all it has and what it lacks is
split over the groups that have more, in proportion to their quotas, by largest remainder.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import polars as pl
from pydantic import Field

from stages.common.errors import InputError
from stages.common.section import Section
from stages.core.draws import stream, uniform_by_id
from stages.core.quotas import draw_counts, largest_remainder
from stages.core.strategies import Context, Strategy, order_rows

ALL = "all"  # the quota that draws from the whole pool, whatever the groups


class GroupDraw(Section):
    """How `lima` draws one group."""

    temperature: float | None = Field(gt=0)  # domains by n^(1/temperature); null: all alike
    within: Literal["score", "random"]  # rows of a domain: by the votes on the prompt, most first, or at random
    each_first: bool  # one row of every domain before the draw


class Stratum(Protocol):
    """The rows that one quota is drawn from."""

    name: str
    rows: pl.DataFrame

    def train(self, n: int) -> pl.DataFrame:
        """Draw n rows, or as many as qualify."""

    def left(self, n: int, n_more: int) -> pl.DataFrame:
        """Give at most n_more rows that may still be drawn behind n."""

    def heldout(self, left: pl.DataFrame, n: int) -> pl.DataFrame:
        """Draw n of the rows that are left."""


class LimaStratum:
    """Draws domains, then rows of each in their order."""

    def __init__(self, name: str, rows: pl.DataFrame, how: GroupDraw, *, seed: int) -> None:
        self.name, self.how, self.seed = name, how, seed
        self.rows = _in_order(rows, how, seed=seed)

    def train(self, n: int) -> pl.DataFrame:
        """Draw n rows."""
        return self._draw(self.rows, n, purpose="train")

    def left(self, n: int, n_more: int) -> pl.DataFrame:
        """Give all rows that are not drawn."""
        return self.rows.join(self.train(n), on="id", how="anti", maintain_order="left")

    def heldout(self, left: pl.DataFrame, n: int) -> pl.DataFrame:
        """Draw n rows by the same rule."""
        return self._draw(left, n, purpose="heldout")

    def _draw(self, rows: pl.DataFrame, n: int, *, purpose: str) -> pl.DataFrame:
        """Draw n rows: how many of each domain, then the first of each; n is at most what there is."""
        if self.name == ALL:
            return rows.head(n)
        sizes = rows.group_by("domain").len().sort("domain")
        counts = draw_counts(
            sizes["len"].to_list(),
            n,
            temperature=self.how.temperature or math.inf,
            rng=stream(seed=self.seed, purpose=f"{purpose} {self.name}"),
            each_first=self.how.each_first,
        )
        wanted = sizes.select("domain", wanted=pl.Series(counts))
        place = pl.int_range(pl.len()).over("domain")
        ranked = rows.with_columns(place=place).join(wanted, on="domain", maintain_order="left")
        drawn = ranked.filter(pl.col("place") < pl.col("wanted")).drop("place", "wanted")
        assert len(drawn) == n, "every row has a domain"
        return drawn


class OrderedStratum:
    """Draws rows in the order of a strategy; the held-out rows come behind the training set."""

    def __init__(self, name: str, rows: pl.DataFrame, strategy: Strategy, context: Context, *, n_heldout: int) -> None:
        self.name, self.rows = name, rows
        self._strategy, self._context, self._n_heldout = strategy, context, n_heldout
        self._ordered = rows.clear()

    def train(self, n: int) -> pl.DataFrame:
        """Give the first n rows; fewer where no more qualify."""
        if len(self._ordered) < n:
            n_ordered = min(len(self.rows), n + self._n_heldout)
            order = order_rows(self.rows, n_ordered, strategy=self._strategy, context=self._context)
            self._ordered = self.rows[order]
        return self._ordered.head(n)

    def left(self, n: int, n_more: int) -> pl.DataFrame:
        """Give the rows that come next."""
        return self._ordered.slice(n, n_more)

    def heldout(self, left: pl.DataFrame, n: int) -> pl.DataFrame:
        """Give the first n of them."""
        return left.head(n)


class Quota(NamedTuple):
    """What became of one quota."""

    n_asked: int
    n_drawn: int
    n_exhausted_domains: int  # of which every row was drawn

    @property
    def n_redistributed(self) -> int:
        """Rows taken over from groups that lacked them; negative where this one did."""
        return self.n_drawn - self.n_asked


class Drawn(NamedTuple):
    """What `draw_quotas` gives; the tables hold the rows of each quota in turn."""

    train: list[pl.DataFrame]
    heldout: list[pl.DataFrame]
    quotas: dict[str, Quota]


def draw_quotas(
    strata: Sequence[Stratum], quotas: Sequence[int], *, n_heldout: int, redistribute: bool, where: str
) -> Drawn:
    """Draw the training set; then the held-out rows from what is left, spread over the groups like the quotas.

    What a group lacks for the held-out rows others give, and where the whole pool is used up there are fewer.

    Raises:
        InputError: a group has too few rows for its quota, or with `redistribute` all groups together have.
    """
    train = _draw_train(strata, quotas, redistribute=redistribute, where=where)
    left = [stratum.left(len(rows), n_heldout) for stratum, rows in zip(strata, train, strict=True)]
    parts = largest_remainder(quotas, n_heldout, capacity=[len(rows) for rows in left])
    heldout = [stratum.heldout(rows, n) for stratum, rows, n in zip(strata, left, parts, strict=True)]
    told = {
        stratum.name: Quota(asked, len(rows), _n_exhausted(stratum.rows, rows))
        for stratum, asked, rows in zip(strata, quotas, train, strict=True)
    }
    return Drawn(train, heldout, told)


def _draw_train(
    strata: Sequence[Stratum], quotas: Sequence[int], *, redistribute: bool, where: str
) -> list[pl.DataFrame]:
    capacity = [len(stratum.rows) for stratum in strata]
    while True:
        for stratum, asked, there in zip(strata, quotas, capacity, strict=True):
            if there < asked and (not redistribute or sum(capacity) < sum(quotas)):
                raise InputError(_too_few(where, stratum, asked, there))
        wanted = largest_remainder(quotas, sum(quotas), capacity=capacity)
        train = [stratum.train(n) for stratum, n in zip(strata, wanted, strict=True)]
        if [len(rows) for rows in train] == wanted:
            return train
        capacity = [  # `deita` cannot say beforehand how many rows are far enough from each other
            len(rows) if len(rows) < n else able for rows, n, able in zip(train, wanted, capacity, strict=True)
        ]


def _too_few(where: str, stratum: Stratum, asked: int, there: int) -> str:
    if there < len(stratum.rows):
        remedy = "raise `sample.deita.max_cosine` or lower the quota"
        return f"{where}: the quota of {stratum.name!r} must be met, asked {asked:,} and {there:,} qualify; {remedy}"
    return (
        f"{where}: the quota of {stratum.name!r} must be met, asked {asked:,} and there are {there:,}; "
        "lower the quota, loosen `quality.rules`, add a source or set `sample.redistribute`"
    )


def _n_exhausted(rows: pl.DataFrame, drawn: pl.DataFrame) -> int:
    """Domains of which nothing is left."""
    sizes = rows.group_by("domain").len().join(drawn.group_by("domain").len("n_drawn"), on="domain")
    return sizes.filter(pl.col("len") == pl.col("n_drawn")).height


def _in_order(rows: pl.DataFrame, how: GroupDraw, *, seed: int) -> pl.DataFrame:
    if how.within == "score":
        return rows.sort("prompt_score", "score", "id", descending=[True, True, False], nulls_last=True)
    draws = pl.Series("draw", uniform_by_id(rows["id"], seed=seed, purpose="within"))
    return rows.with_columns(draws).sort("draw", "id").drop("draw")
