"""origins: where raw files come from: an address under which they lie, or a folder, or the miniature.

An address is `https://host/path`, `http://host/path` or `s3://bucket/prefix`; a file's address is that, a slash and
its name. It stands in params.yaml, in git and in dvc.lock, so it carries no secret: neither user:password@ nor a
query, which is where signed addresses hold their signature. Errors and logs show addresses only as `redacted`.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from pydantic_core import PydanticCustomError

SCHEMES = ("https", "http", "s3")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = re.compile(r"(?<=://)[^/\s'\"]*@")
_QUERY = re.compile(r"\?[^\s'\"()<>]+")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def is_address(origin: str) -> bool:
    """Whether an origin is an address, and not a folder.

    >>> is_address("s3://bucket/dumps"), is_address("/mnt/dumps"), is_address("C:/dumps")
    (True, False, False)
    """
    return _SCHEME.match(origin) is not None


def checked(origin: str) -> str:
    """Return an origin as it is, an address without slashes that say nothing.

    Raises:
        PydanticCustomError: an address that no one can fetch from, or that holds a secret; it shows none of it.

    >>> checked("s3://bucket/dumps//wikihow/")
    's3://bucket/dumps/wikihow'
    """
    scheme = _SCHEME.match(origin)
    if not scheme:
        return origin
    rule = _broken_rule(origin, scheme[1].lower())
    if rule:
        raise PydanticCustomError("hidden", "{rule}, got {shown}", {"rule": rule, "shown": repr(redacted(origin))})
    host, _, path = origin[scheme.end() :].partition("/")
    parts = [part for part in path.split("/") if part]
    return "/".join([f"{scheme[1].lower()}://{host}", *parts])


def joined(address: str, name: str) -> str:
    """The address of a file. Characters that a URL cannot hold are escaped, but not in a key of S3.

    >>> joined("https://host/dumps", "a b.csv"), joined("s3://bucket/dumps", "a b.csv")
    ('https://host/dumps/a%20b.csv', 's3://bucket/dumps/a b.csv')
    """
    return f"{address}/{name if address.startswith('s3://') else quote(name)}"


def bucket_and_key(address: str) -> tuple[str, str]:
    """Split `s3://bucket/key`.

    >>> bucket_and_key("s3://bucket/a/b.csv")
    ('bucket', 'a/b.csv')
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key


def redacted(text: str) -> str:
    """A text with what may be secret in its addresses hidden: user:password@, and everything behind a `?`.

    >>> redacted("https://ann:pw@host/a.7z?X-Amz-Signature=1f: no answer")
    'https://[hidden]@host/a.7z?[hidden] no answer'
    """
    return _QUERY.sub("?[hidden]", _USER.sub("[hidden]@", text))


def _broken_rule(origin: str, scheme: str) -> str:
    """The rule that an address breaks, or ""."""
    if scheme not in SCHEMES:
        return "a folder, or an address that begins with https://, http:// or s3://"
    if any(character <= " " or character == "\x7f" for character in origin):
        return "an address without spaces"
    try:
        parts = urlsplit(origin)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "a well-formed address"
    if "@" in parts.netloc:
        return "an address without user or password (S3: the AWS chain; a web server: ~/.netrc)"
    if "?" in origin or "#" in origin:
        return "an address without ? or # (a signature in it would be written to git; use s3:// or a mirror)"
    if not host or (scheme == "s3" and not _BUCKET.fullmatch(parts.netloc)):
        return f"an address with a {'bucket' if scheme == 's3' else 'host'}"
    return "an address without . or .. in its path" if {".", ".."} & set(parts.path.split("/")) else ""
