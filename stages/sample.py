"""sample: draw one arm's training set, and as many held-out rows, by its quotas and its strategy.

Reads the arm's pool (`arms.<arm>.sample.pool`, EXAMPLE).
Writes data/sample/<arm>.parquet and data/sample/<arm>.heldout.parquet (EXAMPLE, sorted by id), data/sample/<arm>.jsonl
(LIMA's release format: `conversations`, a list of strings, and `source`), data/sample/<arm>.attribution.md (who wrote
each row, under which licence), metrics/sample/<arm>.json (what was asked and drawn, lengths in characters, domains,
coverage and spread, the same of random draws of the whole pool). Lengths in tokens need a tokenizer:
metrics/render/<arm>.json has them.

How `lima` draws, LIMA s2.1 and s2.2, and what happens where rows run out: `stages.core.strata`. The other strategies,
each with its source: `stages.core.strategies`. A quota is drawn from the rows of its group, `all` from the whole pool.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field, field_validator

from stages.common.errors import LimaError, ParamsError
from stages.common.files import empty_table, read_table, write_json, write_table, write_text
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.arms import Arm
from stages.core.attribution import attribution
from stages.core.draw_measures import Measures, measure_draws, spans
from stages.core.draws import stream
from stages.core.quotas import entropy_bits
from stages.core.strata import ALL, Drawn, GroupDraw, LimaStratum, OrderedStratum, Stratum, draw_quotas
from stages.core.strategies import Context, Deita, Strategy, response_chars, texts_of
from stages.core.vectors import F32, tfidf
from stages.runtime.encoder import Vectors, load_encoder
from stages.schema import EXAMPLE

_RANDOM = GroupDraw(temperature=1.0, within="random", each_first=False)

Encode = Callable[[pl.Series], F32]  # texts to fixed-point vectors


class Params(Section):
    """Section `sample`."""

    seed: int = Field(ge=0)
    n_heldout: int = Field(ge=0)  # rows
    redistribute: bool  # a group with fewer rows than its quota: an error, or the others give what it lacks
    groups: dict[str, GroupDraw]
    vectors: Vectors
    deita: Deita
    measures: Measures


class ArmParams(Section):
    """Section `arms.<arm>.sample`."""

    pool: str
    quotas: dict[str, int]  # rows by group, or {all: n}
    strategy: Strategy = "lima"

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


def run(pool: pl.DataFrame, params: Params, arm: ArmParams, *, encode: Encode = tfidf) -> Result:
    """Draw the training set, then the held-out rows by the same rule from what is left, and measure the draw.

    Raises:
        ParamsError: a quota names a group that `sample.groups` lacks.
        InputError: the pool has fewer rows than are asked, in a group or, with `redistribute`, in all.
    """
    pool = pool.sort("id")
    context = Context(params.seed, params.deita, encode)
    strata = [_stratum(pool, group, params, arm, context) for group in arm.quotas]
    drawn = draw_quotas(
        strata,
        list(arm.quotas.values()),
        n_heldout=params.n_heldout,
        redistribute=params.redistribute,
        where=arm.pool,
    )
    train = pl.concat(drawn.train).select(list(EXAMPLE)).sort("id")
    heldout = pl.concat([empty_table(EXAMPLE), *(rows.select(list(EXAMPLE)) for rows in drawn.heldout)]).sort("id")
    metrics = {
        **summarise(train),
        "n_heldout": len(heldout),
        "n_pool": len(pool),
        "quotas": _told(drawn),
        **_measured(pool, train, params, arm, encode),
    }
    return Result(train, heldout, metrics)


def _stratum(pool: pl.DataFrame, group: str, params: Params, arm: ArmParams, context: Context) -> Stratum:
    if group != ALL and group not in params.groups:
        raise ParamsError(
            f"quotas: groups must be keys of sample.groups, got {group!r}; "
            f"add it there or name one of {', '.join(params.groups)}"
        )
    rows = pool if group == ALL else pool.filter(pl.col("group") == group)
    if arm.strategy == "lima":
        return LimaStratum(group, rows, _RANDOM if group == ALL else params.groups[group], seed=params.seed)
    return OrderedStratum(group, rows, arm.strategy, context, n_heldout=params.n_heldout)


def _told(drawn: Drawn) -> dict[str, dict[str, int]]:
    return {name: {**quota._asdict(), "n_redistributed": quota.n_redistributed} for name, quota in drawn.quotas.items()}


def _measured(
    pool: pl.DataFrame, train: pl.DataFrame, params: Params, arm: ArmParams, encode: Encode
) -> dict[str, Any]:
    """Measure the draw and random ones of its whole pool; only the rows that this needs become vectors."""
    rng = stream(seed=params.seed, purpose="measures")
    measured = np.sort(rng.choice(len(pool), min(len(pool), params.measures.n_rows), replace=False))
    draws = [np.flatnonzero(pool["id"].is_in(train["id"].implode()).to_numpy())]
    draws += [np.sort(rng.choice(len(pool), len(train), replace=False)) for _ in range(params.measures.n_random_draws)]
    needed = np.unique(np.concatenate([measured, *draws]))
    rows = pool[needed]
    found, *random = measure_draws(
        encode(texts_of(rows)),
        np.searchsorted(needed, measured),
        [np.searchsorted(needed, draw) for draw in draws],
        domains=rows["domain"],
        chars=response_chars(rows),
        n_rows=params.measures.n_rows,
    )
    if not random:
        return {"measures": found}
    texts = _lengths(rows)
    by_source = [_describe_each(texts[np.searchsorted(needed, draw)], "source") for draw in draws[1:]]
    drawn_from = {"pool": arm.pool, "quotas": {ALL: len(train)}}  # whatever the arm's own quotas
    return {
        "measures": found,
        "random_draws": {"n": len(random), **drawn_from, **spans(random), "sources": _source_spans(by_source)},
    }


def _source_spans(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Table 1 of several draws: counts over all of them, the rest over those that have a row of the source."""
    spanned = {}
    for source in sorted({name for draw in draws for name in draw}):
        found = spans([draw[source] for draw in draws if source in draw])
        spanned[source] = {**found, **spans([{"n": draw[source]["n"] if source in draw else 0} for draw in draws])}
    return spanned


def summarise(rows: pl.DataFrame) -> dict[str, Any]:
    """Describe a training set, by group and by source too (the paper's Table 1, in characters)."""
    texts = _lengths(rows)
    return {**_describe(texts), **{f"{key}s": _describe_each(texts, key) for key in ("group", "source")}}


def _lengths(rows: pl.DataFrame) -> pl.DataFrame:
    """Where each row is from, and the characters of its prompts and of its responses."""
    user = pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content").str.len_chars()
    chars = pl.element().struct.field("content").str.len_chars()
    return rows.select(
        "source", "group", "domain",
        prompt=pl.col("messages").list.eval(user).list.sum(),
        both=pl.col("messages").list.eval(chars).list.sum(),
    ).with_columns(response=pl.col("both") - pl.col("prompt"))  # fmt: skip


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
    load_params(f"arms.{arm}", Arm)
    arm_params = load_params(f"arms.{arm}.sample", ArmParams)
    encode = load_encoder(params.vectors)
    try:
        result = run(read_table(Path(arm_params.pool), EXAMPLE), params, arm_params, encode=encode)
    except LimaError as error:
        raise type(error)(f"params.yaml: arms.{arm}.sample: {error}") from None
    if len(result.heldout) < params.n_heldout:
        print(
            f"WARNING: {arm}: {len(result.heldout):,} held-out rows instead of sample.n_heldout {params.n_heldout:,}; "
            f"{arm_params.pool} has no more",
            file=sys.stderr,
        )
    for group, quota in result.metrics["quotas"].items():
        if quota["n_redistributed"] < 0:
            print(
                f"WARNING: {arm}: {group} gives {quota['n_drawn']:,} rows of the {quota['n_asked']:,} asked, "
                "the other groups the rest",
                file=sys.stderr,
            )
    folder = Path("data/sample")
    write_table(folder / f"{arm}.parquet", result.train, EXAMPLE)
    write_table(folder / f"{arm}.heldout.parquet", result.heldout, EXAMPLE)
    write_text(folder / f"{arm}.jsonl", to_jsonl(result.train))
    write_text(folder / f"{arm}.attribution.md", attribution(result.train, arm=arm))
    write_json(Path(f"metrics/sample/{arm}.json"), result.metrics)


if __name__ == "__main__":
    run_stage(main, key="arm")
