"""transfer: what an answer to a request for a file means, and what to do next. No I/O: all of it is decided here.

HTTP as in RFC 9110: Range and If-Range (13.1.5, 14.2), Content-Range (14.4), Retry-After (10.2.3). S3 speaks the same
with If-Match for If-Range. What a file already has is gone on with only where the server can say that it is still the
same version: by a strong ETag, or a date of its last change; or where a checksum will tell.

A file is whole when it has as many bytes as the answer said. A server that says no number is believed only where the
number, or a checksum, is known from elsewhere: else a connection that ends early would look like the end of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from stages.core.retry_after import retry_after

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0  # of the growing pauses
MAX_RETRY_AFTER_S = 600.0  # a server that asks for a longer pause is not to be waited for

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")
_PASSING = (408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524)  # 509 and up: of CDNs
_GONE = (404, 410)


class Have(NamedTuple):
    """The beginning of a file that is already here."""

    n_bytes: int
    validator: str  # ETag or date of the version that it is of; "" if none was given, and only a checksum can tell


class Append(NamedTuple):
    """Write the body from `offset` on; what lies behind it is from another version."""

    offset: int
    total: int | None  # bytes of the whole file; None if the server does not say
    validator: str
    is_framed: bool = True  # whether the end of the body can be told from a break: by a length, or by chunks


class Whole(NamedTuple):
    """Nothing is missing."""


class Again(NamedTuple):
    """Ask again."""

    why: str
    wait_s: float | None = None  # as the server asks; None: a growing pause
    from_start: bool = False  # what is here is of no use


class Refused(NamedTuple):
    """Asking again would not help."""

    why: str
    remedy: str
    gone: bool = False  # there is no such file


Step = Append | Whole | Again | Refused


def request_headers(have: Have) -> dict[str, str]:
    """The headers of a request for what is missing. A body that is packed on its way could not be gone on with.

    >>> request_headers(Have(5, '"v1"'))
    {'Accept-Encoding': 'identity', 'Range': 'bytes=5-', 'If-Range': '"v1"'}
    """
    headers = {"Accept-Encoding": "identity"}
    if have.n_bytes:
        headers |= {"Range": f"bytes={have.n_bytes}-"} | ({"If-Range": have.validator} if have.validator else {})
    return headers


def step(status: int, headers: Mapping[str, str], have: Have, *, now: datetime) -> Step:
    """Decide what to do with an answer to a GET with `request_headers(have)`.

    Args:
        status: of the answer, behind all redirects.
        headers: of the answer, names in lower case.
        have: what is here.
        now: the time, for a Retry-After that is a date.
    """
    if status == 200:
        return _whole_body(headers)
    if status == 206:
        return _part(headers, have)
    if status in (412, 416):
        unsatisfied = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if status == 416 and unsatisfied and unsatisfied[3] == str(have.n_bytes) and _same_version(headers, have):
            return Whole()
        return Again("it has another version than the one begun with", from_start=True)
    return _fault(status, headers, now=now)


def validator(headers: Mapping[str, str]) -> str:
    """What names a version: a strong ETag, else the date of its last change, else "".

    >>> validator({"etag": 'W/"1"', "last-modified": "Tue, 02 Apr 2024 08:32:00 GMT"})
    'Tue, 02 Apr 2024 08:32:00 GMT'
    """
    etag = headers.get("etag", "").strip()
    return etag if re.fullmatch(r'"[^"\s]*"', etag) else headers.get("last-modified", "").strip()


def length(headers: Mapping[str, str]) -> int | None:
    """The Content-Length, or None."""
    value = headers.get("content-length", "").strip()
    return int(value) if re.fullmatch(r"\d{1,18}", value) else None


def pause_s(attempt: int) -> float:
    """Seconds before the next attempt, behind `attempt` of them that gave nothing; the caller adds jitter.

    >>> [pause_s(attempt) for attempt in (1, 2, 3, 20)]
    [0.5, 1.0, 2.0, 60.0]
    """
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt - 1, 30))


def wrong_kind(name: str, head: bytes) -> str | None:
    """What a file is instead of what its name says, by its first bytes: 1,024 are enough, fewer may not tell.

    >>> wrong_kind("a.7z", b"<!doctype html>"), wrong_kind("a.csv", b"title,text")
    ('a web page', None)
    """
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", head, re.IGNORECASE):
        return "a web page"
    suffix = name.rpartition(".")[2].lower()
    if suffix in _MAGIC and not any(head[: len(magic)] == magic[: len(head)] for magic in _MAGIC[suffix]):
        return f"no {suffix} file"
    if suffix in ("csv", "json", "jsonl", "xml") and head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
        return "a packed file"
    return None


def cut_off(name: str, head: bytes, tail: bytes, n_bytes: int) -> str | None:
    """What is missing of a file that says itself how long it is, or how it ends; None if it may be whole.

    A 7z archive begins with a header of 32 bytes that holds where its other header lies, and how long that is.

    Args:
        name: of the file.
        head: its first 32 bytes or more.
        tail: its last bytes.
        n_bytes: its length.
    """
    suffix = name.rpartition(".")[2].lower()
    if suffix == "7z" and len(head) >= 32:
        total = 32 + int.from_bytes(head[12:20], "little") + int.from_bytes(head[20:28], "little")
        return f"{n_bytes:,} of the {total:,} bytes that its header counts" if n_bytes < total else None
    if not n_bytes:
        return "an empty file"
    if suffix == "7z":
        return f"an archive of {n_bytes} bytes"
    return "no closing bracket at its end" if suffix == "json" and tail.rstrip()[-1:] not in (b"}", b"]") else None


_SKIPPABLE = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))  # zstd frames that hold no data
_MAGIC = {"7z": (b"7z\xbc\xaf\x27\x1c",), "zst": (b"\x28\xb5\x2f\xfd", *_SKIPPABLE)}


def _whole_body(headers: Mapping[str, str]) -> Step:
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return Refused(f"sends the file packed ({headers['content-encoding'][:40]}) though asked not to",
                       "let the server send files as they are")  # fmt: skip
    is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    total = None if is_chunked else length(headers)
    return Append(0, total, validator(headers), is_framed=is_chunked or total is not None)


def _part(headers: Mapping[str, str], have: Have) -> Step:
    given = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if not given or given[1] is None or int(given[1]) != have.n_bytes or not have.n_bytes:
        return Again("it sends another part than the one asked for", from_start=True)
    if not _same_version(headers, have):
        return Again("it has another version than the one begun with", from_start=True)
    return Append(have.n_bytes, None if given[3] == "*" else int(given[3]), have.validator, is_framed=given[3] != "*")


def _same_version(headers: Mapping[str, str], have: Have) -> bool:
    """Whether an answer that names a version names ours."""
    given = headers.get("etag" if have.validator.startswith('"') else "last-modified", "").strip()
    return "" in (given, have.validator) or given == have.validator


def _fault(status: int, headers: Mapping[str, str], *, now: datetime) -> Step:
    if status in _PASSING:
        wait = retry_after(headers.get("retry-after"), now=now)
        if wait is not None and wait > MAX_RETRY_AFTER_S:
            return Refused(f"answers {status} and asks to wait {wait:,.0f} s", "run again then, what came is kept")
        return Again(f"answers {status}", wait)
    if status in _GONE:
        return Refused(f"has no such file (it answers {status})", "correct `origin`, or put the file there", gone=True)
    if status in (401, 403, 407):
        return Refused(f"gives no access (it answers {status})",
                       "check rights and keys (S3: the AWS chain; a web server: ~/.netrc) and the name")  # fmt: skip
    return Refused(f"answers {status}", "correct `origin`, or run again later")
