"""Files of votes: .csv, .tsv, .json, .jsonl and .parquet, each also with .gz (not .parquet)."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.errors import InputError
from stages.common.files import first_line
from stages.core.votes import Votes, read_votes

Records = list[dict[str, Any]]


def read_vote_file(path: Path, *, columns: Mapping[str, str], meanings: Mapping[str, str]) -> Votes:
    """Read the votes of one file; where nothing else names the annotator, the file does (its name without endings).

    Args:
        path: the file.
        columns: columns by role, over what their names say (stages/core/votes.py).
        meanings: what values of the preference say.

    Raises:
        InputError: the file is missing, damaged, or holds no votes that can be read in one way.
    """
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending not in _READERS:
        raise InputError(f"{path}: must end in .{', .'.join(_READERS)} (or that and .gz); rename or convert it")
    try:
        data = path.read_bytes()
        records = _READERS[ending](gzip.decompress(data) if path.suffix == ".gz" else data)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct the path") from None
    except (OSError, EOFError, zlib.error, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: not readable as .{ending} ({first_line(error)}); mend or convert it") from None
    if not all(isinstance(record, dict) for record in records):
        raise InputError(f"{path}: must be a list of objects, a vote or an item each; convert it")
    return read_votes(
        records, name=path.name.removesuffix(".gz").rpartition(".")[0], columns=columns, meanings=meanings
    )


def _table(data: bytes, separator: str = ",") -> Records:
    return pl.read_csv(io.BytesIO(data), separator=separator, infer_schema=False).to_dicts()


def _json(data: bytes) -> Records:
    """A list, or an object that holds one list."""
    value = json.loads(data)
    if isinstance(value, dict):
        lists = [part for part in value.values() if isinstance(part, list)]
        value = lists[0] if len(lists) == 1 else [value]
    return list(value)


def _lines(data: bytes) -> Records:
    return [json.loads(line) for line in data.decode().split("\n") if line.strip()]  # JSON may hold U+2028


_READERS: dict[str, Callable[[bytes], Records]] = {
    "csv": _table,
    "tsv": lambda data: _table(data, "\t"),
    "json": _json,
    "jsonl": _lines,
    "parquet": lambda data: pl.read_parquet(io.BytesIO(data)).to_dicts(),
}
