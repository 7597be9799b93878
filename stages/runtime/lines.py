"""Files of rows, one row at a time: CSV and newline-delimited JSON, with the line number in every error."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from backports import zstd

from stages.common.errors import InputError
from stages.common.files import first_line, writing
from stages.core.rows import storable_value

MAX_LINE_CHARS = 16 * 2**20  # a line that goes on for longer is no row of text


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row by column name) of a CSV file with a header; fields may hold line breaks.

    Raises:
        InputError: the file is no UTF-8 or no CSV, a column is named twice, or a row has more or fewer fields than
            the header.
    """
    header = csv_header(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_lines(file, path), strict=True)
        try:
            next(reader, None)
            for fields in reader:
                if fields and len(fields) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: must have {len(header)} fields as the header, "
                        f"got {len(fields)}; mend the file"
                    )
                if fields:
                    yield reader.line_num, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: must be CSV, got {first_line(error)}; mend it") from None


def csv_header(path: Path) -> tuple[str, ...]:
    """Return the column names of a CSV file.

    Raises:
        InputError: the file is no UTF-8 or no CSV, or a column is named twice.
    """
    csv.field_size_limit(MAX_LINE_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            header = tuple(next(csv.reader(_lines(file, path), strict=True), ()))
        except csv.Error as error:
            raise InputError(f"{path}, line 1: must be CSV, got {first_line(error)}; mend it") from None
    if repeated := [name for name, n in Counter(header).items() if n > 1]:
        raise InputError(f"{path}: must name each column once, got {repeated[0][:60]!r} twice or more; rename it")
    return header


class Readable(Protocol):
    """A binary file, plain or unpacked on the way."""

    def readline(self, size: int = -1, /) -> bytes:
        """Read up to the end of a line, at most `size` bytes."""


def json_rows(
    file: Readable, name: object, *, mentions: Collection[bytes] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of newline-delimited JSON.

    Args:
        file: what to read, open.
        name: what to call it in errors.
        mentions: if any, lines that hold none of these bytes are passed over unread, for speed.

    Raises:
        InputError: a line is too long or is no JSON object.
    """
    number = 0
    while line := file.readline(MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARS:
            raise InputError(
                f"{name}, line {number}: must have at most {MAX_LINE_CHARS:,} bytes, got more; mend the file"
            )
        if not line.strip() or (mentions and not any(word in line for word in mentions)):
            continue
        try:
            row = storable_value(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}, line {number}: must be JSON, got {first_line(error)}; mend the file") from None
        if not isinstance(row, dict):
            raise InputError(f"{name}, line {number}: must be a JSON object, got {type(row).__name__}; mend the file")
        yield number, row


def write_packed(path: Path, lines: Iterable[bytes]) -> None:
    """Write lines to a file of their own, compressed as they come; each ends with a line feed.

    Raises:
        InputError: it cannot be written.
    """
    with writing(path):
        file = zstd.open(path, "wb", level=1)
    try:
        for line in lines:
            with writing(path):
                file.write(line)
    finally:
        with writing(path):
            file.close()


def packed_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that `write_packed` wrote."""
    if path.stat().st_size:  # without a line there is no frame
        with zstd.open(path, "rb") as file:
            yield from file


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    number = 0
    try:
        while line := file.readline(MAX_LINE_CHARS + 1):
            number += 1
            if len(line) > MAX_LINE_CHARS:
                raise InputError(
                    f"{path}, line {number}: must have at most {MAX_LINE_CHARS:,} characters, got more; mend it"
                )
            yield line
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, after line {number}: must be UTF-8, got {first_line(error)}; convert the file"
        ) from None
