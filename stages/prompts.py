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

from stages.core.section import Named, Section
from stages.core.words import normalise
from stages.errors import ParamsError
from stages.runtime.files import empty_table, read_table, write_table
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
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


def run(sources: Mapping[str, pl.DataFrame], params: Params) -> Splits:
    """Draw both sets.

    Args:
        sources: PROMPT tables by source.
        params: how many of each group.

    Raises:
        ParamsError: a quota asks for more than there is.
    """
    rng = np.random.default_rng(params.seed)
    pool = pl.concat([empty_table(PROMPT), *sources.values()]).sort("id")
    taken: set[str] = set()
    test = _draw(pool, "test", params.test, taken, rng)
    dev = _draw(pool, "dev", params.dev, taken, rng)
    return Splits(dev, test)


def main() -> None:
    """Read the prompts of all sources, draw, write."""
    params = load_params("prompts", Params)
    names = load_params("sources", Named).names
    splits = run({name: read_table(Path(f"data/extract/{name}.prompts.parquet"), PROMPT) for name in names}, params)
    for split, prompts in splits._asdict().items():
        write_table(Path(f"data/prompts/{split}.parquet"), prompts, PROMPT)


def _draw(
    pool: pl.DataFrame, split: str, quotas: Mapping[str, int], taken: set[str], rng: np.random.Generator
) -> pl.DataFrame:
    """Draw one split, group by group; `taken` holds the words of all that is drawn and grows."""
    chosen: list[str] = []
    for group, n in sorted(quotas.items()):
        offered = pool.filter(
            pl.col("group") == group,
            pl.col("split").is_null() | (pl.col("split") == split),
            pl.col("over_18").is_null() | ~pl.col("over_18"),
        )
        ids = _different(_ordered(offered, rng), n, taken)
        if len(ids) < n:
            groups = ", ".join(pool["group"].unique().sort()) or "none"
            raise ParamsError(
                f"params.yaml: prompts.{split}.{group}: must be at most {len(ids)}, the different prompts that the "
                f"sources offer for {split}, got {n}; lower it or add a source (groups with prompts: {groups})"
            )
        chosen += ids
    return pool.filter(pl.col("id").is_in(chosen)).with_columns(split=pl.lit(split)).sort("id")


def _ordered(offered: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Prompts of this split in random order, then those of none by falling score."""
    own = offered.filter(pl.col("split").is_not_null())
    free = offered.filter(pl.col("split").is_null())
    shuffled = own[rng.permutation(own.height)]
    return pl.concat([shuffled, free.sort(["score", "id"], descending=[True, False], nulls_last=True)])


def _different(offered: pl.DataFrame, n: int, taken: set[str]) -> list[str]:
    """Return the first n ids whose words are not taken yet, and take them."""
    ids: list[str] = []
    for row in offered.select("id", "messages").iter_rows(named=True):
        if len(ids) == n:
            break
        text = "\n".join(message["content"] for message in row["messages"])
        words = normalise(text) or text  # of an emoji alone, the text itself
        if words not in taken:
            taken.add(words)
            ids.append(row["id"])
    return ids


if __name__ == "__main__":
    run_stage(main)
