"""undrawn: why a row of an arm's pool is not in its training set.

What `lima` took is the beginning of an order (`stages.core.strata`), so the row's place in it is the reason; other
strategies weigh rows against each other, and only how many were taken can be told.
"""

import polars as pl

from stages.common.section import Section
from stages.core.strata import ALL, GroupDraw, LimaStratum

_WHOLE = GroupDraw(temperature=1.0, within="random", each_first=False)  # how `lima` draws a pool without groups


class ArmSample(Section):
    """Section `arms.<arm>.sample`."""

    pool: str
    quotas: dict[str, int]
    strategy: str = "lima"


def quota_of(row: dict[str, object], arm: ArmSample) -> str | None:
    """The quota that a row falls under; None if the arm has none for it."""
    group = ALL if ALL in arm.quotas else str(row["group"])
    return group if group in arm.quotas else None


def why_undrawn(
    row: dict[str, object], pool: pl.DataFrame, drawn: pl.DataFrame, arm: ArmSample, how: GroupDraw | None, *, seed: int
) -> str:
    """Say why a row was not drawn.

    Args:
        row: it, of the pool.
        pool: EXAMPLE rows of its quota, by id; as far as `lima` looks at them.
        drawn: id and domain of the rows that the arm drew by that quota.
        arm: its parameters.
        how: how `lima` draws the group; None: the whole pool.
        seed: of the draw.
    """
    quota, domain = quota_of(row, arm), row["domain"]
    assert quota is not None, "the caller has asked"
    where = "the pool" if quota == ALL else f"group {quota}"
    taken = f"{len(drawn):,} of the {len(pool):,} rows of {where} were"
    if arm.strategy != "lima":
        return f"{taken}, by strategy {arm.strategy}"
    stratum = LimaStratum(quota, pool, how or _WHOLE, seed=seed)
    ordered, of = stratum.rows, ""
    if quota != ALL:
        ordered = ordered.filter(pl.col("domain") == domain)
        of = f", {drawn.filter(pl.col('domain') == domain).height:,} of the {len(ordered):,} of {domain}"
    order = "by votes" if stratum.how.within == "score" else "in an order by chance"
    place = ordered["id"].to_list().index(row["id"]) + 1
    return f"{taken}{of}, {order}, in which it is number {place:,}"
