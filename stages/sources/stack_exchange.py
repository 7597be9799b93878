"""stack_exchange: read dumps in archive.org's layout, one question with its best answer a row.

A site is an archive (`beer.stackexchange.com.7z` with Posts.xml and Users.xml at its root, or the large sites' split
`stackoverflow.com-Posts.7z`, `stackoverflow.com-Users.7z`), or a folder with its name that holds the XML files.
Archives are read as a stream, in one pass, and nothing of them is unpacked.

The answer is the one with the highest score, compared as integers; of several, the one with the lowest id. It is
found among the posts themselves: AnswerCount and AcceptedAnswerId are not read (LIMA s2.1: "the top answer").

The licence is each post's ContentLicense. Dumps from before that column (2020) say nothing post by post; they were
published as a whole under CC BY-SA 3.0, so that is what their rows carry.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.parsers import expat

import py7zr
from py7zr.io import Py7zIO, WriterFactory

from stages.core.html_text import html_to_text
from stages.core.rows import Candidate, Tally, paragraphs, storable, turns
from stages.errors import InputError, LimaError
from stages.runtime.files import first_line
from stages.runtime.pairing import Pair, Pairing
from stages.runtime.progress import progress

UNIT = "questions"
OLD_LICENSE = "CC BY-SA 3.0"

_ARCHIVE = re.compile(r"(?P<site>.+?)(?:-(?P<table>[A-Z][A-Za-z]+))?\.7z")
_UNREAD = ("Badges", "Comments", "PostHistory", "PostLinks", "Tags", "Votes")  # the other tables of a dump
_INTEGER = re.compile(r"-?\d{1,18}")
_MAX_ROW_BYTES = 32 * 2**20  # of XML that holds no start of a row: a post has at most some 100,000
_CHUNK_BYTES = 2**20

Row = dict[str, str]


class Limits(NamedTuple):
    """What a dump may not exceed."""

    max_post_chars: int  # of HTML; a longer question or answer is left out
    max_expansion: int  # times that an archive's content may be larger than the archive


def read(
    folder: Path, *, source: str, groups: Mapping[str, str], default_group: str | None, limits: Limits, tally: Tally
) -> Iterator[Candidate]:
    """Yield a row for each question that has an answer, site by site.

    Args:
        folder: data/pull/<source>.
        source: key of the source.
        groups: quota group by site.
        default_group: group of the sites that `groups` lacks; None refuses them.
        limits: what a dump may not exceed.
        tally: counts the questions and what became of them.

    Raises:
        InputError: a file is damaged, hostile or of another form, or a site is unknown.
    """
    sites = _sites(folder)
    for site, files in sites.items():
        if groups.get(site, default_group) is None:
            raise InputError(
                f"{files[0]}: site {site!r} must have a group in data/catalog/stack_exchange.csv, got none; "
                "add it there or set `extract.default_group` in params.yaml"
            )
    for site, files in progress(sites.items(), desc="extract", total=len(sites), unit="site"):
        group = groups.get(site, default_group) or ""
        with Pairing() as pairing:
            _collect(files, pairing, limits)
            for pair in pairing.pairs():
                tally.n_read += 1
                found = _candidate(pair, site=site, source=source, group=group, limits=limits)
                if isinstance(found, Candidate):
                    yield found
                else:
                    tally.left_out[found] += 1
            tally.aside["questions missing that were answered"] += pairing.n_orphans()
            tally.aside += Counter({"questions given again": pairing.n_repeated})


def _sites(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each site that hold its posts and users, sorted by site."""
    sites: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.7z")):
        name = _ARCHIVE.fullmatch(path.name)
        if not name or name["table"] not in (None, "Posts", "Users", *_UNREAD):
            table = name["table"] if name else "none"
            raise InputError(
                f"{path}: must be SITE.7z or SITE-TABLE.7z of a dump, got table {table!r}; rename the file"
            )
        if name["table"] not in _UNREAD:
            sites.setdefault(storable(name["site"]), []).append(path)
    for path in sorted([*folder.rglob("Posts.xml"), *folder.rglob("Users.xml")]):
        if path.parent == folder:
            raise InputError(f"{path}: must lie in a folder named like its site, got none; put it into one")
        sites.setdefault(storable(path.parent.name), []).append(path)
    return dict(sorted(sites.items()))


def _candidate(pair: Pair, *, site: str, source: str, group: str, limits: Limits) -> Candidate | str:
    """Return the row of a question, or why there is none."""
    title, question, prompt_score, tags = pair.prompt
    if pair.response is None:
        return "unanswered"
    answer_id, answer, created, license_, display_name = pair.response
    if question is None or answer is None:
        return f"over {limits.max_post_chars:,} characters"
    title, body, response = " ".join(title.split()), html_to_text(question), html_to_text(answer)
    if not title:
        return "without a title"
    if not response:
        return "with an answer that has no text"
    return Candidate(
        id=f"{source}:{site}/{pair.key}",
        source=source,
        domain=site,
        group=group,
        score=pair.score,
        messages=turns(paragraphs(title, body), response),
        url=f"https://{site}/a/{answer_id}",
        author=pair.author or display_name,
        license=license_ or OLD_LICENSE,
        created=created[:10] if created else None,
        tags=re.findall(r"[^<>|]+", tags) or None,
        title=title,
        body=body or None,
        prompt_score=prompt_score,
    )


# --- tables ------------------------------------------------------------------------------------------------------


def _collect(files: list[Path], pairing: Pairing, limits: Limits) -> None:
    """Read the posts and users of one site."""
    tables: list[str] = []

    def parser(path: Path, table: str) -> _RowParser:
        tables.append(table)
        return _RowParser(path, table, (lambda row: _add_user(row, pairing)) if table == "users" else add_post)

    def add_post(row: Row) -> None:
        _add_post(row, pairing, limits)

    for path in files:
        if path.suffix == ".7z":
            _read_archive(path, parser, limits)
        else:
            _read_xml(path, parser(path, path.stem.lower()))
    if tables.count("posts") != 1:
        raise InputError(f"{files[0]}: a site must have one Posts.xml, got {tables.count('posts')}; mend the origin")


def _add_post(row: Row, pairing: Pairing, limits: Limits) -> None:
    kind, body = row.get("PostTypeId"), row.get("Body", "")
    kept = body if len(body) <= limits.max_post_chars else None
    if kind == "1":
        pairing.add_prompt(row["Id"], [row.get("Title", ""), kept, _integer(row, "Score"), row.get("Tags", "")])
    elif kind == "2" and "ParentId" in row:
        fields = [row["Id"], kept, row.get("CreationDate"), row.get("ContentLicense"), row.get("OwnerDisplayName")]
        pairing.add_response(
            row["ParentId"],
            score=_integer(row, "Score"),
            number=_integer(row, "Id"),
            fields=fields,
            author=row.get("OwnerUserId", ""),
        )


def _add_user(row: Row, pairing: Pairing) -> None:
    if row.get("DisplayName"):
        pairing.add_author(row["Id"], row["DisplayName"])


def _integer(row: Row, name: str) -> int:
    value = row.get(name, "")
    if not _INTEGER.fullmatch(value):
        raise InputError(f"row {row['Id']}: {name} must be an integer, got {value[:40]!r}; the file is damaged")
    return int(value)


class _RowParser:
    """Takes the bytes of one XML table and hands on the attributes of each row; no DTD, so no entities."""

    def __init__(self, path: Path, table: str, handle: Callable[[Row], None]) -> None:
        self.name, self.table, self.handle = f"{path}: {table}", table, handle
        self.depth, self.n_pending = 0, 0
        self.expat = expat.ParserCreate()
        self.expat.StartElementHandler = self._start
        self.expat.EndElementHandler = self._end
        self.expat.StartDoctypeDeclHandler = self._refuse_doctype

    def feed(self, data: bytes, *, last: bool = False) -> None:
        self.n_pending += len(data)
        try:
            self.expat.Parse(data, last)
        except expat.ExpatError as error:
            raise InputError(f"{self.name}: must be XML, got {error}; the file is truncated or damaged") from None
        except InputError as error:
            raise InputError(f"{self.name}, line {self.expat.CurrentLineNumber}: {error}") from None
        if self.n_pending > _MAX_ROW_BYTES:
            raise InputError(f"{self.name}: a row must have at most {_MAX_ROW_BYTES:,} bytes, got more; mend the file")

    def _start(self, tag: str, row: Row) -> None:
        self.depth += 1
        self.n_pending = 0
        expected = {1: self.table, 2: "row"}.get(self.depth)
        if tag != expected:
            raise InputError(
                f"must be <{expected or 'row'}>, got <{tag[:40]}>; it is no table of a Stack Exchange dump"
            )
        if self.depth == 2:
            if not _INTEGER.fullmatch(row.get("Id", "")):
                raise InputError(f"a row must have an Id, got {row.get('Id', '')[:40]!r}; the file is damaged")
            self.handle(row)

    def _end(self, _tag: str) -> None:
        self.depth -= 1

    def _refuse_doctype(self, *_declaration: object) -> None:
        raise InputError("must be without a DOCTYPE, got one; it could define entities, and no dump has one")


# --- files -------------------------------------------------------------------------------------------------------


def _read_xml(path: Path, parser: _RowParser) -> None:
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            parser.feed(data)
    parser.feed(b"", last=True)


def _read_archive(path: Path, parser: Callable[[Path, str], _RowParser], limits: Limits) -> None:
    """Stream Posts.xml and Users.xml of a 7z archive into parsers."""
    factory = _Sinks(lambda table: parser(path, table))
    try:
        # given an open file, py7zr reads folder by folder in this thread; given a path it starts one thread each
        with path.open("rb") as file, py7zr.SevenZipFile(file) as archive:
            names = _wanted(path, archive, limits)
            archive.extract(targets=names, factory=factory)
    except LimaError:
        raise
    except Exception as error:  # a hostile header can raise anything from inside py7zr
        if factory.error:
            raise factory.error from None
        why = first_line(error) or type(error).__name__
        raise InputError(f"{path}: must be a whole 7z archive, got {why}; fetch it anew") from None


def _wanted(path: Path, archive: py7zr.SevenZipFile, limits: Limits) -> list[str]:
    """Return the members to read, after a look at all names and sizes.

    Raises:
        InputError: a name leads outside, a table is there twice, or the content is out of proportion.
    """
    members = archive.list()
    for member in members:
        if member.filename.startswith("/") or ".." in PurePosixPath(member.filename.replace("\\", "/")).parts:
            raise InputError(f"{path}: members must stay in their folder, got {member.filename!r}; do not trust it")
    wanted = [m for m in members if PurePosixPath(m.filename).name in _TABLES]
    names = [PurePosixPath(member.filename).name for member in wanted]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: must hold each table once, got {', '.join(sorted(names))}; mend the archive")
    # a member that is not wanted is unpacked too where it lies before one that is
    n_bytes, limit = sum(m.uncompressed or 0 for m in members), limits.max_expansion * path.stat().st_size
    if n_bytes > limit:
        raise InputError(
            f"{path}: must unpack to at most {limits.max_expansion} times its size, got {n_bytes:,} bytes; "
            "if you trust it, raise `extract.max_expansion` in params.yaml"
        )
    return [member.filename for member in wanted]


_TABLES = {"Posts.xml": "posts", "Users.xml": "users"}


class _Sinks(WriterFactory):  # type: ignore[misc]
    """Gives py7zr a parser to write each member to, and keeps the error that one raises."""

    def __init__(self, parser: Callable[[str], _RowParser]) -> None:
        self.parser = parser
        self.error: Exception | None = None

    def create(self, filename: str) -> _Sink:
        return _Sink(self, self.parser(_TABLES[PurePosixPath(filename).name]))


class _Sink(Py7zIO):  # type: ignore[misc]
    """A member that is parsed as it is unpacked."""

    def __init__(self, owner: _Sinks, parser: _RowParser) -> None:
        self.owner, self.parser, self.n_bytes = owner, parser, 0

    def write(self, s: bytes | bytearray) -> int:
        self._feed(bytes(s))
        self.n_bytes += len(s)
        return len(s)

    def close(self) -> None:
        self._feed(b"", last=True)

    def _feed(self, data: bytes, *, last: bool = False) -> None:
        try:
            self.parser.feed(data, last=last)
        except Exception as error:
            self.owner.error = error
            raise

    def read(self, size: int | None = None) -> bytes:
        raise NotImplementedError(f"read({size}): a sink is only written to")

    def seek(self, offset: int, whence: int = 0) -> int:
        assert offset == whence == 0, "py7zr rewinds a finished member and does nothing else"
        return 0

    def flush(self) -> None:
        pass

    def size(self) -> int:
        return self.n_bytes
