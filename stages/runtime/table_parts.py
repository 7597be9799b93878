"""A table that is larger than memory: written in sorted parts as its rows come, then merged into one file by id.

What the parts are does not show in the file: its row groups have a set number of rows, and each is laid out anew
(polars cuts pages by what a frame is a slice of).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from stages.common.errors import InputError
from stages.common.files import empty_table, write_table, writing

GROUP_ROWS = 10_000  # rows of a row group of the merged file
_STEP_ROWS = 200  # of a row group of a part: as fine as parts can be read; two of each part are held in a merge
_BATCH_ROWS = 2000  # kept as Python objects before they become columns
_BYTES_A_CHAR = 3  # of memory, from text to the encoded part


class PartWriter:
    """Takes rows in any order, and writes a part sorted by id whenever `memory_bytes` are full."""

    def __init__(self, folder: Path, name: str, schema: dict[str, pl.DataType], *, memory_bytes: int) -> None:
        self.folder, self.name, self.schema = folder, name, schema
        self.max_chars = max(1, memory_bytes // _BYTES_A_CHAR)
        self.n_rows = self._n_chars = self._n_parts = 0
        self._rows: list[tuple[Any, ...]] = []
        self._frames: list[pl.DataFrame] = []

    def add(self, row: tuple[Any, ...], n_chars: int) -> None:
        """Take a row, of so many characters."""
        self._rows.append(row)
        self._n_chars += n_chars
        self.n_rows += 1
        if len(self._rows) == _BATCH_ROWS:
            self._to_columns()
        if self._n_chars >= self.max_chars:
            self.close()

    def close(self) -> None:
        """Write what has not been written."""
        self._to_columns()
        if not self._frames:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_part(self.folder / f"{self.name}-{self._n_parts:06d}.parquet", pl.concat(self._frames))
        self._frames, self._n_chars, self._n_parts = [], 0, self._n_parts + 1

    def _to_columns(self) -> None:
        if self._rows:
            self._frames.append(pl.DataFrame(self._rows, schema=self.schema, orient="row", strict=True))
            self._rows = []


def write_part(path: Path, rows: pl.DataFrame) -> None:
    """Write a part of one row or more."""
    with writing(path):
        rows.sort("id").write_parquet(
            path, compression="zstd", compression_level=1, statistics=False, row_group_size=_STEP_ROWS
        )


def merge_parts(parts: Sequence[Path], path: Path, schema: dict[str, pl.DataType]) -> int:
    """Write the rows of all parts to one file, by id, and return how many there are.

    Raises:
        InputError: an id is there twice, or the file cannot be written.
    """
    spans = sorted(_Span(part) for part in parts)
    n_rows: int = sum(span.n_rows for span in spans)
    if n_rows <= GROUP_ROWS:
        table = pl.concat([empty_table(schema), *(pl.read_parquet(span.path) for span in spans)]).sort("id")
        _check_ids(table["id"], "")
        write_table(path, table, schema)
        return n_rows
    groups = _groups(_in_order(spans))

    def source(_columns: object, _predicate: object, _n_rows: object, _batch: object) -> Iterator[pl.DataFrame]:
        return (group.select(list(schema)) for group in groups)

    partial = path.with_name(f".{path.name}.partial")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            register_io_source(source, schema=schema).sink_parquet(
                partial, compression="zstd", statistics=False, row_group_size=GROUP_ROWS, maintain_order=True
            )
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return n_rows


class _Span:
    """A part and the ids at its ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        ends = pl.scan_parquet(path).select(first=pl.first("id"), last=pl.last("id"), n=pl.len()).collect()
        self.first: str = ends["first"][0]
        self.last: str = ends["last"][0]
        self.n_rows: int = ends["n"][0]

    def __lt__(self, other: _Span) -> bool:
        return (self.first, self.last) < (other.first, other.last)

    def rows(self, start: int, n: int | None = None) -> pl.DataFrame:
        """Read some rows."""
        return pl.scan_parquet(self.path).slice(start, n).collect()


def _in_order(spans: Sequence[_Span]) -> Iterator[pl.DataFrame]:
    """Yield the rows of all parts by id; parts that lie apart are read one after another, others merged."""
    cluster: list[_Span] = []
    for span in spans:
        if cluster and span.first > max(other.last for other in cluster):
            yield from _merged(cluster)
            cluster = []
        cluster.append(span)
    yield from _merged(cluster)


def _merged(spans: Sequence[_Span]) -> Iterator[pl.DataFrame]:
    """Yield the rows of parts that overlap by id, in ranges that hold about _STEP_ROWS of each part."""
    if len(spans) == 1:
        for start in range(0, spans[0].n_rows, GROUP_ROWS):
            yield spans[0].rows(start, GROUP_ROWS)
        return
    steps = [pl.scan_parquet(span.path).select("id").gather_every(_STEP_ROWS).collect()["id"] for span in spans]
    cuts = pl.concat(steps).sort()[:: len(spans)].unique().sort().to_list()
    for low, high in pairwise([*cuts, None]):
        found = []
        for span, ids in zip(spans, steps, strict=True):
            start = max(int(ids.search_sorted(low, "left")) - 1, 0) * _STEP_ROWS
            end = span.n_rows if high is None else int(ids.search_sorted(high, "left")) * _STEP_ROWS
            rows = span.rows(start, end - start) if end > start else None
            if rows is not None:
                found.append(rows.filter(pl.col("id") >= low, pl.lit(high is None) | (pl.col("id") < (high or ""))))
        yield pl.concat(found).sort("id")


def _groups(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Cut rows that come in order into frames of GROUP_ROWS rows, each laid out by itself."""
    kept: list[pl.DataFrame] = []
    n_kept, last = 0, ""
    for frame in frames:
        while len(frame):
            taken, frame = frame[: GROUP_ROWS - n_kept], frame[GROUP_ROWS - n_kept :]
            kept.append(taken)
            n_kept += len(taken)
            if n_kept == GROUP_ROWS:
                last = _check_ids(pl.concat(part["id"] for part in kept), last)
                yield _laid_out(kept)
                kept, n_kept = [], 0
    if kept:
        _check_ids(pl.concat(part["id"] for part in kept), last)
        yield _laid_out(kept)


def _laid_out(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    table = pl.concat(frames)
    return table.select(pl.all().gather(pl.int_range(pl.len())))


def _check_ids(ids: pl.Series, last: str) -> str:
    """Refuse an id that comes twice in ascending ids that follow `last`; gives the last of them."""
    repeated = ids.filter((ids == ids.shift(1, fill_value=last)) & (ids != ""))
    if len(repeated):
        raise InputError(f"{repeated[0]}: ids must be unique, got it twice; give each row once in the origin")
    return str(ids[-1]) if len(ids) else last
