"""sample: draw one arm's training set, and as many held-out rows, by its quotas.

Reads the arm's pool (`arms.<arm>.sample.pool`, EXAMPLE).
Writes data/sample/<arm>.parquet and data/sample/<arm>.heldout.parquet (EXAMPLE, sorted by id), data/sample/<arm>.jsonl
(LIMA's release format: `conversations`, a list of strings, and `source`), metrics/sample/<arm>.json.

LIMA s2.1: exchanges are drawn at temperature 3 and within one the highest-scored questions; a wikiHow category is
drawn, then an article in it; s2.2: 50 tasks, one example each. *Our reading*: p_i is proportional to n_i^(1/tau); a
domain that runs out leaves the draw; rows of the same score come in the order of their ids.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl
from pydantic import Field, field_validator

from stages.core.draws import stream, uniform_by_id
from stages.core.quotas import draw_counts, entropy_bits, largest_remainder
from stages.core.section import Section
from stages.errors import InputError, LimaError, ParamsError
from stages.runtime.files import empty_table, read_table, write_json, write_table, write_text
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
from stages.schema import EXAMPLE

ALL = "all"  # the quota that draws from the whole pool, whatever the groups


class Strategy(Section):
    """How one group is drawn."""

    temperature: float | None = Field(gt=0)  # domains by n^(1/temperature); null: all alike
    within: Literal["score", "random"]  # rows of a domain: the highest score first, or at random
    each_first: bool  # one row of every domain before the draw


class Params(Section):
    """Section `sample`."""

    seed: int = Field(ge=0)
    n_heldout: int = Field(ge=0)  # rows
    groups: dict[str, Strategy]


class ArmParams(Section):
    """Section `arms.<arm>.sample`."""

    pool: str
    quotas: dict[str, int]  # rows by group, or {all: n}

    @field_validator("quotas")
    @classmethod
    def _positive(cls, quotas: dict[str, int]) -> dict[str, int]:
        if not quotas or min(quotas.values()) < 1 or (ALL in quotas and len(quotas) > 1):
            raise ValueError(f"a map from groups to 1 or more rows, or `{ALL}` alone")
        return quotas


class Result(NamedTuple):
    """What `run` gives; both tables are EXAMPLE, sorted by id, and share no row."""

    train: pl.DataFrame
    heldout: pl.DataFrame
    metrics: dict[str, Any]


class _Stratum(NamedTuple):
    """A group's rows in the order in which each domain gives them out."""

    name: str
    strategy: Strategy
    quota: int
    rows: pl.DataFrame


def run(pool: pl.DataFrame, params: Params, arm: ArmParams) -> Result:
    """Draw the training set, then the held-out rows by the same rule from what is left.

    Held-out rows are spread over the groups like the quotas; what a group lacks others give, and where the whole pool
    is used up there are fewer.

    Raises:
        ParamsError: a quota names a group that `sample.groups` lacks.
        InputError: the pool has fewer rows of a group than its quota.
    """
    strata = [_stratum(pool, group, quota, params, arm) for group, quota in arm.quotas.items()]
    drawn = [draw(stratum, stratum.quota, seed=params.seed, purpose="train") for stratum in strata]
    left = [
        s._replace(rows=s.rows.join(rows, on="id", how="anti", maintain_order="left"))
        for s, rows in zip(strata, drawn, strict=True)
    ]
    parts = largest_remainder([s.quota for s in left], params.n_heldout, capacity=[len(s.rows) for s in left])
    heldout = [draw(s, n, seed=params.seed, purpose="heldout") for s, n in zip(left, parts, strict=True)]
    train = pl.concat(drawn).sort("id")
    held = pl.concat([empty_table(EXAMPLE), *heldout]).sort("id")
    return Result(train, held, {**summarise(train), "n_heldout": len(held), "n_pool": len(pool)})


def _stratum(pool: pl.DataFrame, group: str, quota: int, params: Params, arm: ArmParams) -> _Stratum:
    if group == ALL:
        strategy, rows = Strategy(temperature=1.0, within="random", each_first=False), pool
    elif group in params.groups:
        strategy, rows = params.groups[group], pool.filter(pl.col("group") == group)
    else:
        raise ParamsError(
            f"quotas: groups must be keys of sample.groups, got {group!r}; "
            f"add it there or name one of {', '.join(params.groups)}"
        )
    if len(rows) < quota:
        raise InputError(
            f"{arm.pool}: the quota of {group!r} must be met, asked {quota:,} and there are {len(rows):,}; "
            "lower the quota, loosen `quality.rules` or add a source"
        )
    return _Stratum(group, strategy, quota, _in_order(rows, strategy, seed=params.seed))


def _in_order(rows: pl.DataFrame, strategy: Strategy, *, seed: int) -> pl.DataFrame:
    if strategy.within == "score":
        return rows.sort(pl.col("score").fill_null(-(2**62)), "id", descending=[True, False])
    draws = pl.Series("draw", uniform_by_id(rows["id"], seed=seed, purpose="within"))
    return rows.with_columns(draws).sort("draw", "id").drop("draw")


def draw(stratum: _Stratum, n: int, *, seed: int, purpose: str) -> pl.DataFrame:
    """Draw n rows: how many of each domain, then the first of each; n is at most what there is."""
    if stratum.name == ALL:
        return stratum.rows.head(n)
    sizes = stratum.rows.group_by("domain").len().sort("domain")
    temperature = stratum.strategy.temperature or math.inf
    counts = draw_counts(
        sizes["len"].to_list(),
        n,
        temperature=temperature,
        rng=stream(seed=seed, purpose=f"{purpose} {stratum.name}"),
        each_first=stratum.strategy.each_first,
    )
    wanted = sizes.select("domain", wanted=pl.Series(counts))
    place = pl.int_range(pl.len()).over("domain")
    ranked = stratum.rows.with_columns(place=place).join(wanted, on="domain", maintain_order="left")
    drawn = ranked.filter(pl.col("place") < pl.col("wanted")).drop("place", "wanted")
    assert len(drawn) == n, "every row has a domain"
    return drawn


def summarise(rows: pl.DataFrame) -> dict[str, Any]:
    """Describe a training set, by group and by source too."""
    user = pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content").str.len_chars()
    chars = pl.element().struct.field("content").str.len_chars()
    texts = rows.select(
        "source", "group", "domain",
        prompt=pl.col("messages").list.eval(user).list.sum(),
        both=pl.col("messages").list.eval(chars).list.sum(),
    ).with_columns(response=pl.col("both") - pl.col("prompt"))  # fmt: skip
    return {**_describe(texts), **{f"{key}s": _describe_each(texts, key) for key in ("group", "source")}}


def _describe_each(texts: pl.DataFrame, key: str) -> dict[str, Any]:
    parts = sorted(texts.group_by(key), key=lambda part: str(part[0][0]))
    return {str(name): _describe(part) for (name,), part in parts}


def _describe(texts: pl.DataFrame) -> dict[str, Any]:
    by_domain = texts["domain"].value_counts()["count"].sort().to_list()
    return {
        "n": len(texts),
        "n_domains": len(by_domain),
        "domain_entropy_bits": entropy_bits(by_domain),
        "mean_prompt_chars": texts["prompt"].mean(),
        "mean_response_chars": texts["response"].mean(),
    }


def to_jsonl(rows: pl.DataFrame) -> str:
    """Write rows in LIMA's release format, one a line."""
    lines = (
        json.dumps({"conversations": [m["content"] for m in messages], "source": source}, ensure_ascii=False)
        for messages, source in rows.select("messages", "source").iter_rows()
    )
    return "".join(f"{line}\n" for line in lines)


def main(arm: str) -> None:
    """Draw one arm."""
    params = load_params("sample", Params)
    arm_params = load_params(f"arms.{arm}.sample", ArmParams)
    try:
        result = run(read_table(Path(arm_params.pool), EXAMPLE), params, arm_params)
    except LimaError as error:
        raise type(error)(f"params.yaml: arms.{arm}.sample: {error}") from None
    if len(result.heldout) < params.n_heldout:
        print(
            f"WARNING: {arm}: {len(result.heldout):,} held-out rows instead of sample.n_heldout {params.n_heldout:,}; "
            f"{arm_params.pool} has no more",
            file=sys.stderr,
        )
    folder = Path("data/sample")
    write_table(folder / f"{arm}.parquet", result.train, EXAMPLE)
    write_table(folder / f"{arm}.heldout.parquet", result.heldout, EXAMPLE)
    write_text(folder / f"{arm}.jsonl", to_jsonl(result.train))
    write_json(Path(f"metrics/sample/{arm}.json"), result.metrics)


if __name__ == "__main__":
    run_stage(main, key="arm")
