"""extract: parse, join and clean one source's raw files to candidate rows and prompts.

Reads data/pull/<source>/ as the source's format says; data/catalog/stack_exchange.csv has the quota groups of sites.
Writes data/extract/<source>.parquet (CANDIDATE) and data/extract/<source>.prompts.parquet (PROMPT), by id, either may
be empty, and data/extract/<source>.left_out.parquet (LEFT_OUT: what is no row, by reason). Prints all that in one line.

LIMA s2.1 and s2.2 name the sources; how each is read, and what is *our reading*, stands in stages/sources/<format>.py.
No threshold of quality is applied here: only what cannot be an example is left out.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import polars as pl
from pydantic import Field

from stages.core.formats import Format, Source
from stages.core.rows import Candidate, Prompt, Tally
from stages.core.section import Section
from stages.errors import InputError
from stages.runtime.files import empty_table, write_table
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
from stages.schema import CANDIDATE, LEFT_OUT, PROMPT

CATALOG = Path("data/catalog/stack_exchange.csv")
_BATCH_ROWS = 10_000  # kept as Python objects before they become columns


class Params(Section):
    """Section `extract`."""

    default_group: str | None = Field(min_length=1)  # quota group of a site that the catalogue lacks; null: an error
    max_post_chars: int = Field(ge=1)  # characters of a question, answer, article or comment
    max_expansion: int = Field(ge=1)  # size of an archive's content over the archive's


class Tables(NamedTuple):
    """The two tables of a source, by id."""

    candidates: pl.DataFrame
    prompts: pl.DataFrame


def run(rows: Iterable[Candidate | Prompt], tally: Tally, *, where: str = "source") -> Tables:
    """Collect a reader's rows.

    Args:
        rows: what the reader yields; it may be long.
        tally: the reader's account, complete when the rows are.
        where: what to call the source in errors.

    Raises:
        InputError: two rows have one id, or there are none at all.
    """
    candidates, prompts = _Columns(CANDIDATE), _Columns(PROMPT)
    for row in rows:
        (candidates if isinstance(row, Candidate) else prompts).add(row)
    tables = Tables(candidates.table(), prompts.table())
    n_rows = tables.candidates.height + tables.prompts.height
    assert tally.n_read == n_rows + tally.left_out.total(), f"a reader lost count: {tally}"
    if not n_rows:
        got = tally.line(n_candidates=0, n_prompts=0)
        raise InputError(f"{where}: must hold something to keep, got {got}; correct its `origin` in params.yaml")
    return tables


def main(source: str) -> None:
    """Extract one source."""
    params = load_params("extract", Params)
    format_ = load_params(f"sources.{source}", Source).format
    folder = Path("data/pull") / source
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; `dvc repro pull@{source}` makes it")
    rows, tally = read(format_, folder, source=source, params=params)
    tables = run(rows, tally, where=f"sources.{source}, {folder}")
    write_table(Path(f"data/extract/{source}.parquet"), tables.candidates, CANDIDATE)
    write_table(Path(f"data/extract/{source}.prompts.parquet"), tables.prompts, PROMPT)
    write_table(Path(f"data/extract/{source}.left_out.parquet"), left_out(source, tally), LEFT_OUT)
    line = tally.line(n_candidates=tables.candidates.height, n_prompts=tables.prompts.height)
    print(f"extract {source}: {line}")


def left_out(source: str, tally: Tally) -> pl.DataFrame:
    """What is no candidate, by reason (LEFT_OUT, sorted by reason)."""
    rows = [(source, reason, n) for reason, n in sorted(tally.left_out.items()) if n]
    return pl.DataFrame(rows, schema=dict(LEFT_OUT), orient="row")


def read(
    format_: Format, folder: Path, *, source: str, params: Params
) -> tuple[Iterator[Candidate] | Iterator[Candidate | Prompt], Tally]:
    """Choose the reader of a format. It starts to read when its rows are asked for; the tally is complete at the end.

    The imports stand inside: a stage on one format is not to depend on the code of the others.
    """
    match format_:
        case "stack_exchange":
            from stages.sources import stack_exchange

            tally = Tally(stack_exchange.UNIT)
            limits = stack_exchange.Limits(params.max_post_chars, params.max_expansion)
            groups = read_catalog(CATALOG)
            return stack_exchange.read(
                folder, source=source, groups=groups, default_group=params.default_group, limits=limits, tally=tally
            ), tally
        case "wikihow":
            from stages.sources import wikihow

            tally = Tally(wikihow.UNIT)
            return wikihow.read(folder, source=source, max_post_chars=params.max_post_chars, tally=tally), tally
        case "reddit":
            from stages.sources import reddit

            tally = Tally(reddit.UNIT)
            return reddit.read(folder, source=source, max_post_chars=params.max_post_chars, tally=tally), tally
        case "natural_instructions":
            from stages.sources import natural_instructions

            tally = Tally(natural_instructions.UNIT)
            return natural_instructions.read(
                folder, source=source, max_post_chars=params.max_post_chars, tally=tally
            ), tally
        case "authored":
            from stages.sources import authored

            tally = Tally(authored.UNIT)
            return authored.read(folder, source=source, tally=tally), tally
    assert_never(format_)


def read_catalog(path: Path) -> dict[str, str]:
    """Read the quota group of each Stack Exchange site.

    Raises:
        InputError: the file is missing, has other columns, or names a site twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; it belongs to the project, restore it")
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if header != ["site", "group"] or any(len(line) != 2 or not all(line) for line in lines):
        raise InputError(f"{path}: must have two columns, site and group, all filled, got others; mend it")
    groups = dict(lines)
    if len(groups) < len(lines):
        raise InputError(f"{path}: must name each site once, got {len(lines) - len(groups)} repeated; remove them")
    return groups


class _Columns:
    """Rows that become columns in batches, since Python objects take many times the space."""

    def __init__(self, schema: dict[str, pl.DataType]) -> None:
        self.schema = schema
        self.rows: list[tuple[Any, ...]] = []
        self.batches: list[pl.DataFrame] = [empty_table(schema)]

    def add(self, row: tuple[Any, ...]) -> None:
        self.rows.append(row)
        if len(self.rows) == _BATCH_ROWS:
            self._flush()

    def table(self) -> pl.DataFrame:
        """Return all rows by id."""
        self._flush()
        table = pl.concat(self.batches).sort("id")
        repeated = table.filter(pl.col("id").is_duplicated())
        if repeated.height:
            raise InputError(f"{repeated['id'][0]}: ids must be unique, got it twice; give each row once in the origin")
        return table

    def _flush(self) -> None:
        self.batches.append(pl.DataFrame(self.rows, schema=self.schema, orient="row", strict=True))
        self.rows = []


if __name__ == "__main__":
    run_stage(main, key="source")
