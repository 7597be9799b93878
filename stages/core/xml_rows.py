"""xml_rows: tables of a Stack Exchange dump, one `<row .../>` a line, read from their bytes without an XML parser.

A dump's table is XML of the narrowest kind: a line is a row, a row is attributes in double quotes, and nothing else is
there. `scan` finds the rows of some lines and takes the few integers that a join needs; `attributes` reads one row
whole. Both refuse as `Irregular` what differs in anything: it may be XML all the same, and an XML parser has to say. So
no DOCTYPE, no entity and no nesting gets past this module.

What is checked: of every line, that it is one row and nothing else, the form of the integers taken, that no other "<"
and no control character is in it; of the rows that `attributes` and `unescaped` read, every byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MAX_DIGITS = 17  # of an id, so that `text_order` fits 64 bits

_POWERS: Ints = 10 ** np.arange(MAX_DIGITS + 1, dtype=np.int64)
_ID = rb"[1-9][0-9]{0,16}"
_INTEGER = rb"0|-?[1-9][0-9]{0,16}"
_ANY = rb'="[^"]*+"'
_OPENING = re.compile(rb" {0,8}<row ")
_NAME = re.compile(rb"(?: {0,8}<row)? ([A-Za-z_][A-Za-z0-9_]*+)=")
_CLOSING = re.compile(rb" ?/>\r?\n?")
_REFERENCE = re.compile(r"&(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|(lt|gt|amp|quot|apos));|[&\ufffe\uffff]")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_UNUSUAL = "\0"  # no XML holds it
# What a dump writes; a "&" that begins none of them stands for itself, marked.
_COMMON = {"&lt;": "<", "&gt;": ">", "&#xA;": "\n", "&amp;": "&", "&quot;": '"', "&#xD;": "\r", "&#x9;": "\t",
           "&": _UNUSUAL, "\ufffe": _UNUSUAL, "\uffff": _UNUSUAL}  # fmt: skip


class Irregular(Exception):  # noqa: N818 - no error: the file may well be XML
    """These bytes are not one row a line in the form of a dump."""


class Layout(NamedTuple):
    """What is taken of each row of a table, and the usual order of its attributes as a regular expression.

    `names` are the groups of `usual`, in order. A row in another order is read whole, so it takes longer and no more.
    """

    table: str
    names: tuple[str, ...]
    forms: tuple[re.Pattern[bytes], ...]  # of a value that is there
    usual: re.Pattern[bytes]


POSTS = Layout(
    "posts",
    ("Id", "PostTypeId", "ParentId", "Score"),
    tuple(map(re.compile, (_ID, rb"[0-9]+", _ID, _INTEGER))),
    re.compile(
        rb' {0,8}<row Id="(%b)" (?!PostTypeId="2" (?!ParentId=))PostTypeId="([0-9]+)"(?: AcceptedAnswerId%b)?'
        rb'(?: ParentId="(%b)")? CreationDate%b(?: DeletionDate%b)? Score="(%b)"(?= (?:ViewCount|Body)=)'
        % (_ID, _ANY, _ID, _ANY, _ANY, _INTEGER)
    ),
)
USERS = Layout(
    "users",
    ("Id", "DisplayName"),
    (re.compile(_INTEGER), re.compile(rb'[^"]*')),
    re.compile(
        rb' {0,8}<row Id="(%b)"(?: Reputation%b)?(?: CreationDate%b)? DisplayName="([^"]*+)" ' % (_INTEGER, _ANY, _ANY)
    ),
)
COMMENTS = Layout(
    "comments",
    ("Id", "PostId", "UserId"),
    (re.compile(_ID), re.compile(_ID), re.compile(_INTEGER)),
    re.compile(
        rb' {0,8}<row Id="(%b)" PostId="(%b)" Score%b Text%b CreationDate%b(?: UserDisplayName%b)? UserId="(%b)"'
        % (_ID, _ID, _ANY, _ANY, _ANY, _ANY, _INTEGER)
    ),
)


def scan(lines: bytes, layout: Layout) -> Iterator[tuple[tuple[bytes | None, ...], int, int]]:
    r"""Yield (values by `layout.names`, where its line begins, where the next one does) for each row.

    Args:
        lines: whole lines, each ended by "\n" or "\r\n" and holding one row.
        layout: what to take; None stands for an attribute that a row lacks.

    Raises:
        Irregular: they are not such lines. Some rows may have been given before.
    """
    data = np.frombuffer(lines, np.uint8)
    n_rows = position = 0
    line_end = b"\r\n" if lines.endswith(b"\r\n") else b"\n"
    tail = b"/>" + line_end
    n_tail, usual, find = len(tail), layout.usual.match, lines.find
    while position < len(lines):
        end = find(b"\n", position) + 1
        if lines[end - n_tail : end] != tail:
            raise Irregular("a row that does not end with its line, or a line that does not end")
        found = usual(lines, position, end)
        yield found.groups() if found else _in_any_order(lines[position:end], layout), position, end
        n_rows += 1
        position = end
    if np.count_nonzero(data == ord("<")) != n_rows:
        raise Irregular("lines that are more than a row")
    if np.count_nonzero(data < ord(" ")) != n_rows * len(line_end):
        raise Irregular("control characters")


def _in_any_order(row: bytes, layout: Layout) -> tuple[bytes | None, ...]:
    fields = attributes(row)
    values = tuple(fields.get(name) for name in layout.names)
    for value, form in zip(values, layout.forms, strict=True):
        if value is not None and not form.fullmatch(value):
            raise Irregular("a number that is not written as usual")
    return values


def attributes(row: bytes) -> dict[str, bytes]:
    r"""Return the attributes of one row, as they are written.

    Raises:
        Irregular: it is no row, or names an attribute twice.

    >>> attributes(b'  <row Id="1" Title="a &amp; b" />\r\n')
    {'Id': b'1', 'Title': b'a &amp; b'}
    """
    parts = _parts(row)
    return dict(zip(_names(tuple(parts[::2])), parts[1::2], strict=True))


def some_attributes(row: bytes, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], list[bytes]]:
    """Return those of some attributes that a row has: their names, and their values as they are written.

    Raises:
        Irregular: as `attributes`.
    """
    parts = _parts(row)
    names, places = _places(tuple(parts[::2]), wanted)
    return names, [parts[place] for place in places]


def _parts(row: bytes) -> list[bytes]:
    """Return what stands between the values, and the values, in turn."""
    parts = row.split(b'"')
    if len(parts) % 2 == 0 or len(parts) < 3:
        raise Irregular("a row whose quotes are not pairs")
    return parts


@lru_cache(maxsize=4096)
def _places(between: tuple[bytes, ...], wanted: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    there = {name: 2 * i + 1 for i, name in enumerate(_names(between))}
    names = tuple(name for name in wanted if name in there)
    return names, tuple(there[name] for name in names)


@lru_cache(maxsize=4096)
def _names(between: tuple[bytes, ...]) -> tuple[str, ...]:
    """Return the attributes' names in what stands between the values; a table has few such rows of names."""
    opening, *inner, closing = between
    named = [_NAME.fullmatch(part) for part in (opening, *inner)] if _OPENING.match(opening) else [None]
    names = tuple(found[1].decode() for found in named if found)
    if len(names) < len(between) - 1 or len(set(names)) < len(names) or not _CLOSING.fullmatch(closing):
        raise Irregular("a row that is not attributes with different names and nothing else")
    return names


def unescaped(values: Sequence[bytes]) -> list[str]:
    """Return the texts of attributes' values, references resolved once.

    Raises:
        Irregular: a value is no UTF-8, or has a reference or a character that XML does not know. The characters that
            `scan` looks for are not looked for again.

    >>> unescaped([b"&lt;p&gt; &amp;lt; &#233;"])
    ['<p> &lt; é']
    """
    try:
        column = pl.Series("v", values, dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:
        raise Irregular("bytes that are no UTF-8") from None
    table = column.to_frame().select(pl.col("v").str.replace_many(_COMMON, leftmost=True))
    marked = table["v"].str.contains(_UNUSUAL, literal=True).arg_true().to_list()
    texts: list[str] = table["v"].to_list()
    for i in marked:
        texts[i] = _REFERENCE.sub(_character, column[i])
    return texts


def _character(reference: re.Match[str]) -> str:
    if reference[3]:
        return _NAMED[reference[3]]
    code = int(reference[1], 16) if reference[1] else int(reference[2]) if reference[2] else 0
    if code in (9, 10, 13) or 32 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0x10000 <= code < 0x110000:
        return chr(code)
    raise Irregular("a reference that XML does not know")


def text_order(ids: Ints) -> Ints:
    """Return numbers that are in the order of the ids as texts: 1, 10, 100, 11, 2.

    Args:
        ids: at least 1, of at most MAX_DIGITS digits.

    >>> sorted([2, 11, 100, 10, 1], key=lambda id_: text_order(np.array([id_]))[0])
    [1, 10, 100, 11, 2]
    """
    n_digits = np.searchsorted(_POWERS, ids, side="right")
    order: Ints = (ids * _POWERS[MAX_DIGITS - n_digits] << 5) + n_digits  # 10^17 * 2^5 < 2^63
    return order


def from_text_order(keys: Ints) -> Ints:
    """Return the ids again.

    >>> from_text_order(text_order(np.array([7, 120]))).tolist()
    [7, 120]
    """
    ids: Ints = (keys >> 5) // _POWERS[MAX_DIGITS - (keys & 31)]
    return ids
