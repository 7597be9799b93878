"""catalog: which files a source is made of, what is known of them, and which of them are wanted.

A catalog (data/catalog/files/<format>.csv) has a row a file with the columns

    file     its name below the origin, the same upstream and on every mirror
    about    its size where known, and how a person gets it, in words
    sum      its checksum as `algorithm:hex`, where it is one file for all time
    unless   another file of the catalog that holds the same; this one is wanted only where that one is not to be had
    by_hand  the page where a person gets it, where a program cannot

and more for the reader. What upstream or a mirror publishes beside the files is read too: SHA256SUMS as `sha256sum`
writes it, and archive.org's <item>_files.xml. Pins are what a first pull found, see stages.pull.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import NamedTuple
from xml.parsers import expat

from stages.common.errors import InputError

COLUMNS = ("file", "about", "sum", "unless", "by_hand")
PIN_COLUMNS = ("file", "bytes", "sha256", "address")
# Hex digits; the first that is known is compared. git_blob: the name that git gives to a file's content.
ALGORITHMS = {"sha256": 64, "git_blob": 40, "sha1": 40, "md5": 32}

_SUMS_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")


class Listed(NamedTuple):
    """A row of a catalog."""

    name: str
    about: str
    sums: dict[str, str]  # hex by algorithm
    unless: str
    by_hand: str


class Known(NamedTuple):
    """What is known of a file before it is fetched, and who says so."""

    says: str
    n_bytes: int | None
    sums: dict[str, str]  # hex by algorithm


class Pin(NamedTuple):
    """What a first pull found: the file, and where it was."""

    n_bytes: int
    sha256: str
    address: str


def read_catalog(text: str, *, where: str) -> list[Listed]:
    """Read a catalog.

    Raises:
        InputError: it lacks a column, or a row breaks a rule.
    """
    rows = _rows(text, COLUMNS, where=where)
    files = [
        Listed(row["file"], row["about"], _sums(row["sum"], where=where), row["unless"], row["by_hand"]) for row in rows
    ]
    names = {file.name for file in files}
    for file in files:
        if file.unless and (file.unless not in names or file.unless == file.name):
            raise InputError(f"{where}: `unless` must be another file of the list, got {file.unless!r}; mend it")
    return files


def selected(names: Sequence[str], only: Sequence[str] | None) -> list[str]:
    """The names that fit a pattern, less those that fit one with "!" before it; patterns without "!" may be missing.

    >>> selected(["a.7z", "b.7z", "c.csv"], ["*.7z", "!b*"]), selected(["a.7z", "b.7z"], ["!b*"])
    (['a.7z'], ['a.7z'])
    """
    wanted = [pattern for pattern in only or () if not pattern.startswith("!")] or ["*"]
    unwanted = [pattern[1:] for pattern in only or () if pattern.startswith("!")]
    return [name for name in names if _fits(name, wanted) and not _fits(name, unwanted)]


def idle_patterns(names: Iterable[str], only: Sequence[str] | None) -> list[str]:
    """The patterns that fit no name: each is a mistake."""
    known = list(names)
    return [pattern for pattern in only or () if not any(_fits(name, [pattern.removeprefix("!")]) for name in known)]


def without_substitutes(files: Iterable[Listed], there: Collection[str], *, is_final: bool) -> list[Listed]:
    """Leave out what another file holds too: the substitutes of a file that is there, else the file itself.

    Args:
        files: what is wanted.
        there: names of those that can be had.
        is_final: whether of a file that is not there, as are its substitutes, only the file itself is left, to be
            missed; otherwise all are.
    """
    rows = list(files)
    names = {file.name for file in rows}
    substituted = {file.unless for file in rows if file.name in there}

    def is_left(file: Listed) -> bool:
        first = file.unless if file.unless in names else file.name
        if first not in there and first not in substituted:
            return not is_final or file.name == first
        return (file.name == first) == (first in there)

    return [file for file in rows if is_left(file)]


def read_sha256sums(text: str) -> dict[str, Known]:
    """Read what `sha256sum` writes; other lines (a comment, a page for people) say nothing.

    >>> read_sha256sums("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 *a.7z")["a.7z"].says
    'SHA256SUMS'
    """
    found = (_SUMS_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match[2]: Known("SHA256SUMS", None, {"sha256": match[1].lower()}) for match in found if match}


def read_files_xml(content: bytes, *, says: str) -> dict[str, Known]:
    """Read archive.org's list of an item: <file name="..."><size/><md5/><sha1/></file>.

    Text that is no XML says nothing: many servers answer any address with a page.

    Raises:
        InputError: it declares a document type, where entities come from.
    """
    found: dict[str, Known] = {}
    fields: dict[str, str] = {}
    path: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        path.append(tag)
        if tag == "file":
            fields.clear()
            fields["name"] = attributes.get("name", "")

    def end(tag: str) -> None:
        path.pop()
        if tag == "file":
            sums = {name: fields[name] for name in ALGORITHMS if _is_hex(fields.get(name, ""), ALGORITHMS[name])}
            size = fields.get("size", "")
            found[fields.get("name", "")] = Known(says, int(size) if size.isdecimal() else None, sums)

    def data(text: str) -> None:
        if len(path) >= 2 and path[-2] == "file":
            fields[path[-1]] = fields.get(path[-1], "") + text

    def refuse(*_: object) -> None:
        raise InputError(f"{says}: must declare no document type, got one; it is no list of archive.org")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, data
    if not re.match(rb"\s*<(?:!DOCTYPE\s+)?html", content[:1024], re.IGNORECASE):
        parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError:
        return {}
    return found


def read_pins(text: str, *, where: str) -> dict[str, Pin]:
    """Read the pins of a source.

    Raises:
        InputError: it lacks a column, or a row breaks a rule.
    """
    pins = {}
    for row in _rows(text, PIN_COLUMNS, where=where):
        if not row["bytes"].isdecimal() or not _is_hex(row["sha256"], 64):
            raise InputError(f"{where}: {row['file']}: must have bytes and sha256, got others; remove the line")
        pins[row["file"]] = Pin(int(row["bytes"]), row["sha256"], row["address"])
    return pins


def written_pins(pins: Mapping[str, Pin]) -> str:
    """Pins as text, by name."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(PIN_COLUMNS)
    writer.writerows((name, *pin) for name, pin in sorted(pins.items()))
    return out.getvalue()


def is_safe(name: str) -> bool:
    r"""Whether a file of this name lies below its folder wherever that is, and is no hidden one.

    >>> is_safe("a/b.7z"), is_safe("../b.7z"), is_safe("/b.7z"), is_safe("a\\b.7z"), is_safe(".b.7z")
    (True, False, False, False, False)
    """
    parts = PurePosixPath(name).parts
    clean = (
        not name.startswith("/") and name.isprintable() and not set('\\:*?"<>|') & set(name) and "/".join(parts) == name
    )
    return bool(parts) and clean and all(not part.startswith(".") and len(part.encode()) <= 255 for part in parts)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _sums(text: str, *, where: str) -> dict[str, str]:
    if not text:
        return {}
    algorithm, _, digits = text.partition(":")
    if not _is_hex(digits, ALGORITHMS.get(algorithm, -1)):
        raise InputError(
            f"{where}: sum must be ALGORITHM:HEX with one of {', '.join(ALGORITHMS)}, got {text!r}; mend it"
        )
    return {algorithm: digits.lower()}


def _is_hex(text: str, n_digits: int) -> bool:
    return len(text) == n_digits and not set(text.lower()) - set("0123456789abcdef")


def _rows(text: str, columns: Collection[str], *, where: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if not set(columns) <= set(reader.fieldnames or ()):
        raise InputError(f"{where}: must have the columns {', '.join(columns)}, got others; mend its first line")
    rows = list(reader)
    for row in rows:
        if None in row or None in row.values():
            raise InputError(
                f"{where}: must have as many cells as columns, got other in {row['file']!r}; mend the line"
            )
        if not is_safe(row["file"]):
            raise InputError(f"{where}: must hold names of files below the origin, got {row['file']!r}; mend the line")
    if len({row["file"] for row in rows}) < len(rows):
        raise InputError(f"{where}: must name each file once, got one twice; remove a line")
    return rows
