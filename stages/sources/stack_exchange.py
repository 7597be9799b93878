"""stack_exchange: read dumps in archive.org's layout, one question with its best answer a row.

A site is an archive (`beer.stackexchange.com.7z` with Posts.xml and Users.xml at its root, or the large sites' split
`stackoverflow.com-Posts.7z`, `stackoverflow.com-Users.7z`), or a folder with its name that holds the XML files.
Archives are read as a stream, in one pass, and never unpacked.

The answer is the one with the highest score, compared as integers; of several, the one with the lowest id. It is
found among the posts themselves: AnswerCount and AcceptedAnswerId are not read (LIMA s2.1: "the top answer").
`stages.core.posts` makes the rows and says what licence they have; `stages.core.comment_threads` says which comment
threads are dialogues (LIMA s6).

A dump as it is published is read from its bytes, in `first_pass` and `second_pass`; where it is not one row a line,
both raise Irregular, and `whole_site` reads it by an XML parser.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stages.common.errors import InputError
from stages.core.posts import Site, Thread, candidate, dialogue
from stages.core.rows import Candidate, Tally, storable
from stages.core.xml_rows import Irregular
from stages.runtime.table_parts import PartWriter
from stages.runtime.workers import Do
from stages.schema import CANDIDATE
from stages.sources import stack_exchange_expat, stack_exchange_index, stack_exchange_lines

UNIT = "questions"

_ARCHIVE = re.compile(r"(?P<site>.+?)(?:-(?P<table>[A-Z][A-Za-z]+))?\.7z")
_UNREAD = ("Badges", "PostHistory", "PostLinks", "Tags", "Votes")  # the other tables of a dump
_READ = ("Posts", "Users", "Comments")


class Limits(NamedTuple):
    """What a dump may not exceed, and how much of it is read."""

    max_post_chars: int  # of HTML; a longer question or answer is left out
    max_expansion: int  # times that an archive's content may be larger than the archive
    dialogues: bool = False  # whether comment threads are read too
    memory_bytes: int = 2**28  # of rows held at a time


class Dump(NamedTuple):
    """One site and its files."""

    site: Site
    files: tuple[Path, ...]

    @property
    def n_bytes(self) -> int:
        """Size of the files."""
        return sum(path.stat().st_size for path in self.files)


class Range(NamedTuple):
    """A part of the second pass over a site, in a process of its own."""

    dump: Dump
    work: Path  # folder of the first pass
    made: Path  # folder for the rows
    number: int
    low: int
    high: int
    limits: Limits


def extract(dump: Dump, work: Path, made: Path, limits: Limits, do: Do) -> Tally:
    """Write the rows of a site to parts in a folder, in whatever processes `do` has.

    Raises:
        InputError: a file is damaged or hostile, or the site has no posts.
    """
    tally = Tally(UNIT)
    try:
        found = first_pass(dump, work, limits, do)
        parts = [Range(dump, work, made, i, *bounds, limits) for i, bounds in enumerate(found)]
        for part in do(_write_range, parts):
            tally.add(part)
    except Irregular as why:
        for path in made.iterdir():
            path.unlink()
        (tally,) = do(_write_whole, [Range(dump, work, made, 0, 0, 0, limits)])
        tally.notes.append(_slowly(dump, why))
    return tally


def _slowly(dump: Dump, why: Irregular) -> str:
    return f"{dump.site.name} is not one row a line as dumps are ({why}), so an XML parser read it, which takes longer"


def _write_range(part: Range) -> Tally:
    tally = Tally(UNIT)
    _write(part, second_pass(part.dump, part.work, part.low, part.high, part.limits, tally))
    return tally


def _write_whole(part: Range) -> Tally:
    tally = Tally(UNIT)
    _write(part, whole_site(part.dump, part.limits, tally))
    return tally


def _write(part: Range, rows: Iterator[Candidate]) -> None:
    writer = PartWriter(
        part.made, f"candidates-{part.number:06d}", CANDIDATE, memory_bytes=part.limits.memory_bytes // 2
    )
    for row in rows:
        writer.add(row, 2 * sum(len(message["content"]) for message in row.messages))
    writer.close()


def dumps(
    folder: Path, *, source: str, groups: Mapping[str, str], default_group: str | None, limits: Limits
) -> list[Dump]:
    """Return the sites of a folder in the order of their rows' ids.

    Raises:
        InputError: a file's name is no dump's, a site has no group, or its Posts.xml is in a wrong place or missing.
    """
    sites = _sites(folder, comments=limits.dialogues)
    found = []
    for site, files in sites.items():
        group = groups.get(site) or default_group
        if group is None:
            raise InputError(
                f"{files[0]}: site {site!r} must have a group in data/catalog/stack_exchange.csv, got none; "
                "add it there or set `extract.default_group` in params.yaml"
            )
        found.append(Dump(Site(site, group, source), tuple(files)))
    return found


def first_pass(dump: Dump, work: Path, limits: Limits, do: Do) -> list[tuple[int, int]]:
    """Find where a site's rows are, and return the ranges for `second_pass`.

    Args:
        dump: the site.
        work: an empty folder.
        limits: what a dump may not exceed.
        do: `map`, or what does the same in many processes.

    Raises:
        Irregular: it is not one row a line.
        InputError: a file is damaged or hostile, or the site has no posts.
    """
    tables = _tables(limits)
    tasks = stack_exchange_index.tasks(
        dump.files, tables, work, max_expansion=limits.max_expansion, memory_bytes=limits.memory_bytes
    )
    n_tables = Counter(table for found in do(stack_exchange_index.index, tasks) for table in found)
    check_posts(dump, n_tables["posts"])
    if max(n_tables.values()) > 1:
        raise Irregular("a table in two files")
    return stack_exchange_lines.ranges(work, memory_bytes=limits.memory_bytes // 8)


def check_posts(dump: Dump, n: int) -> None:
    """Refuse a site that has no posts, or has them twice."""
    if n != 1:
        raise InputError(f"{dump.files[0]}: a site must have one Posts.xml, got {n}; mend the origin")


def second_pass(dump: Dump, work: Path, low: int, high: int, limits: Limits, tally: Tally) -> Iterator[Candidate]:
    """Yield the rows of one range of `first_pass`, by id.

    Raises:
        Irregular: a row that is needed is not one by XML's rules.
    """
    yield from _rows(stack_exchange_lines.threads(work, low, high, tally=tally), dump.site, limits, tally)


def whole_site(dump: Dump, limits: Limits, tally: Tally) -> Iterator[Candidate]:
    """Yield the rows of a site, by id, whatever XML its tables are.

    Raises:
        InputError: a file is damaged or hostile, or the site has no posts.
    """
    found = stack_exchange_expat.threads(
        dump.files,
        _tables(limits),
        max_post_chars=limits.max_post_chars,
        max_expansion=limits.max_expansion,
        tally=tally,
    )
    yield from _rows(found, dump.site, limits, tally)


def _rows(threads: Iterator[Thread], site: Site, limits: Limits, tally: Tally) -> Iterator[Candidate]:
    for thread in threads:
        row = candidate(thread, site, max_post_chars=limits.max_post_chars)
        if isinstance(row, str):
            tally.left_out[row] += 1
            continue
        yield row
        if further := dialogue(row, thread):
            tally.n_further += 1
            yield further


def _tables(limits: Limits) -> tuple[str, ...]:
    return ("posts", "users", "comments") if limits.dialogues else ("posts", "users")


def _sites(folder: Path, *, comments: bool) -> dict[str, list[Path]]:
    """Return the files of each site that are read, in the order of the ids: "a.b/1" is before "a/1"."""
    tables = _READ if comments else _READ[:2]
    sites: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.7z")):
        name = _ARCHIVE.fullmatch(path.name)
        if not name or name["table"] not in (None, *_READ, *_UNREAD):
            table = name["table"] if name else "none"
            raise InputError(
                f"{path}: must be SITE.7z or SITE-TABLE.7z of a dump, got table {table!r}; rename the file"
            )
        if name["table"] in (None, *tables):
            sites.setdefault(storable(name["site"]), []).append(path)
    for path in sorted(path for table in tables for path in folder.rglob(f"{table}.xml")):
        if path.parent == folder:
            raise InputError(f"{path}: must lie in a folder named like its site, got none; put it into one")
        sites.setdefault(storable(path.parent.name), []).append(path)
    return dict(sorted(sites.items(), key=lambda item: f"{item[0]}/"))
