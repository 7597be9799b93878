"""prompts: draw the dev and test prompts.

Reads data/extract/<source>.prompts.parquet (PROMPT) of every source in params.yaml.
Writes data/prompts/dev.parquet and data/prompts/test.parquet (PROMPT, `split` filled), by id.

LIMA Table 1: 50 dev prompts, all authored; 300 test prompts, 230 authored and 70 titles of r/AskReddit (the most
upvoted ones, s2.1). *Our reading*: a prompt that comes with a split stays in it, and the quota of its group is drawn at
random; one without goes by score, ties by id, and never if it is marked over 18. No prompt is drawn twice, nor with the
same words as one that was drawn before. Test is drawn first: where both ask for one prompt, the measured set has it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from stages.common.errors import ParamsError
from stages.common.files import empty_table, write_table
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Named, Section
from stages.core.words import normalise
from stages.runtime.streams import reading, scan_table
from stages.schema import PROMPT

Quotas = dict[str, Annotated[int, Field(ge=0)]]


class Params(Section):
    """Section `prompts`."""

    seed: int = Field(ge=0)
    dev: Quotas = Field(min_length=1)  # prompts to draw, by group
    test: Quotas = Field(min_length=1)


class Splits(NamedTuple):
    """The drawn prompts, by id."""

    dev: pl.DataFrame
    test: pl.DataFrame


def run(sources: Mapping[str, pl.LazyFrame], params: Params) -> Splits:
    """Draw both sets. Of prompts without a split as many are held as the quotas ask for; of the others all.

    Args:
        sources: PROMPT tables by source.
        params: how many of each group.

    Raises:
        ParamsError: a quota asks for more than there is.
    """
    rng = np.random.default_rng(params.seed)
    pool = pl.concat([empty_table(PROMPT).lazy(), *sources.values()])
    taken: set[str] = set()
    test = _draw(pool, "test", params.test, taken, rng)
    dev = _draw(pool, "dev", params.dev, taken, rng)
    return Splits(dev, test)


def main() -> None:
    """Read the prompts of all sources, draw, write."""
    params = load_params("prompts", Params)
    names = load_params("sources", Named).names
    frames = {name: scan_table(Path(f"data/extract/{name}.prompts.parquet"), PROMPT) for name in names}
    with reading("data/extract"):
        splits = run(frames, params)
    for split, prompts in splits._asdict().items():
        write_table(Path(f"data/prompts/{split}.parquet"), prompts, PROMPT)


def _draw(
    pool: pl.LazyFrame, split: str, quotas: Mapping[str, int], taken: set[str], rng: np.random.Generator
) -> pl.DataFrame:
    """Draw one split, group by group; `taken` holds the words of all that is drawn and grows."""
    drawn = [empty_table(PROMPT)]
    for group, n in sorted(quotas.items()):
        offered = pool.filter(pl.col("group") == group, pl.col("over_18").is_null() | ~pl.col("over_18"))
        own = offered.filter(pl.col("split") == split).collect(engine="streaming").sort("id")
        chosen = _different(own[rng.permutation(own.height)], n, taken)
        chosen.extend(_best(offered.filter(pl.col("split").is_null()), n - len(chosen), taken))
        if len(chosen) < n:
            groups = ", ".join(pool.select("group").unique().sort("group").collect()["group"]) or "none"
            raise ParamsError(
                f"params.yaml: prompts.{split}.{group}: must be at most {len(chosen)}, the different prompts that the "
                f"sources offer for {split}, got {n}; lower it or add a source (groups with prompts: {groups})"
            )
        drawn.append(chosen)
    return pl.concat(drawn).with_columns(split=pl.lit(split)).sort("id")


def _best(free: pl.LazyFrame, n: int, taken: set[str]) -> pl.DataFrame:
    """The first n different ones by falling score, ties by id; all where there are fewer."""
    ordered = free.sort(["score", "id"], descending=[True, False], nulls_last=True)
    n_read = 4 * n + 100
    while True:
        read = ordered.head(n_read).collect(engine="streaming")
        seen = set(taken)
        found = _different(read, n, seen)
        if len(found) == n or len(read) < n_read:
            taken |= seen
            return found
        n_read *= 4


def _different(offered: pl.DataFrame, n: int, taken: set[str]) -> pl.DataFrame:
    """Return the first n rows whose words are not taken yet, and take them."""
    chosen: list[int] = []
    for row, messages in enumerate(offered["messages"]):
        if len(chosen) == n:
            break
        text = "\n".join(message["content"] for message in messages)
        words = normalise(text) or text  # of an emoji alone, the text itself
        if words not in taken:
            taken.add(words)
            chosen.append(row)
    return offered[chosen]


if __name__ == "__main__":
    run_stage(main)
