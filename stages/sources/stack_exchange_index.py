"""stack_exchange_index: where the rows of one site's dump lie, found from its bytes in many processes.

The first of two passes: it scans the lines for ids, parents and scores, and writes where each row lies, sorted by
question. A plain file is scanned in byte ranges; an archive is a stream, kept compressed as it comes, since its rows
cannot be read again in another order. `stack_exchange_lines` is the second pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.core.xml_rows import COMMENTS, POSTS, USERS, Ints, Irregular, Layout, scan, text_order
from stages.runtime.row_store import Spool, remember
from stages.runtime.sorted_runs import RunWriter

_BLOCK_BYTES = 2**19  # scanned, and kept of an archive, at a time
_TAIL_BYTES = 64  # held back, as the last line of a table is no row
_MAX_ROW_BYTES = 32 * 2**20
_RANGE_BYTES = 64 * 2**20  # of a plain file, a task
_DECLARATION = rb"<\?xml version=[\"']1\.0[\"'](?: encoding=[\"'](?i:utf-8)[\"'])? ?\?>"
_HEAD = rb"(?:\xef\xbb\xbf)?(?:%b)?\s*<%%b>[ \t]*\r?\n" % _DECLARATION
_NOBODY = -(2**62)  # the user of a comment that has none

_LAYOUTS = {layout.table: layout for layout in (POSTS, USERS, COMMENTS)}
N_COLUMNS = {"posts": 6, "users": 3, "comments": 5}


class Task(NamedTuple):
    """A part of the first pass: an archive, or lines of a plain file that begin in [start, end)."""

    path: Path
    tables: tuple[str, ...]
    work: Path  # folder for what is found
    number: int  # different for each task of a site
    start: int = 0
    end: int = 0
    max_expansion: int = 0
    memory_bytes: int = 0


def tasks(
    files: Sequence[Path], tables: Sequence[str], work: Path, *, max_expansion: int, memory_bytes: int
) -> list[Task]:
    """Cut the first pass over a site's files into tasks, which `index` does in any order and in any processes."""
    cut: list[Task] = []
    for path in files:
        if path.suffix == ".7z":
            cut.append(Task(path, tuple(tables), work, len(cut), 0, 0, max_expansion, memory_bytes))
            continue
        table, size = path.stem.lower(), path.stat().st_size
        remember(work, table, path)
        n = max(1, size // _RANGE_BYTES)
        for i in range(n):
            start, end = size * i // n, size * (i + 1) // n
            cut.append(Task(path, (table,), work, len(cut), start, end, 0, memory_bytes))
    return cut


def index(task: Task) -> list[str]:
    """Do one task of the first pass, and return the tables that begin in it.

    Raises:
        Irregular: the site is to be read by an XML parser.
        InputError: the archive is damaged or hostile.
    """
    if task.path.suffix == ".7z":
        from stages.runtime.archives import stream_members  # slow to import, and plain files do without

        found: list[str] = []

        def scanner_of(name: str) -> _Scanner:
            found.append(Path(name).stem.lower())
            return _Scanner(found[-1], task, Spool(task.work, found[-1]))

        names = [f"{table.capitalize()}.xml" for table in task.tables]
        stream_members(task.path, names, scanner_of, max_expansion=task.max_expansion, passing=Irregular)
        return found
    with task.path.open("rb") as file:
        size, skipped = file.seek(0, 2), 0
        file.seek(max(task.start - 1, 0))
        if task.start:
            skipped = len(file.readline(_MAX_ROW_BYTES)) - 1  # the rest of a line that begins before
        scanner = _Scanner(task.tables[0], task, None, place=task.start + skipped, is_first=not task.start)
        left = task.end - task.start - skipped
        while left > 0 and (data := file.read(min(left, _BLOCK_BYTES))):
            left -= len(data)
            scanner.feed(data)
        if task.end < size:
            scanner.feed(b"" if scanner.is_at_line else file.readline(_MAX_ROW_BYTES))
        scanner.close(is_last=task.end == size)
    return [] if task.start else [task.tables[0]]


class _Scanner:
    """Takes the bytes of a table, or of some lines of it, and writes where its rows are."""

    def __init__(self, table: str, task: Task, spool: Spool | None, *, place: int = 0, is_first: bool = True) -> None:
        self.layout, self.spool, self.place = _LAYOUTS[table], spool, place
        self.runs = RunWriter(
            task.work, f"{table}-{task.number:06d}", n_columns=N_COLUMNS[table], memory_bytes=task.memory_bytes // 2
        )
        self.head = re.compile(_HEAD % table.encode()) if is_first else None
        self.pending: list[bytes] = []
        self.n_pending = 0

    @property
    def is_at_line(self) -> bool:
        """Whether all that was fed ended with a line, or nothing was."""
        return not self.pending or self.pending[-1].endswith(b"\n")

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        if not data:
            return
        self.pending.append(data)
        self.n_pending += len(data)
        if self.n_pending >= _BLOCK_BYTES and b"\n" in data:
            block = b"".join(self.pending)
            cut = block.rfind(b"\n", 0, -_TAIL_BYTES) + 1
            if cut:
                self._take(block[:cut])
            self.pending, self.n_pending = [block[cut:]], len(block) - cut
        if self.n_pending > _MAX_ROW_BYTES:
            raise Irregular("a line that goes on and on")

    def close(self, *, is_last: bool = True) -> None:
        """Finish; the end of the last part of a table must be the end of the table."""
        block, tail = b"".join(self.pending), b"</%b>" % self.layout.table.encode()
        if is_last:
            block, found, rest = block.rpartition(tail)
            if not found or rest.strip() or (block and not block.endswith(b"\n")):
                raise Irregular("a table that does not end")
        if block:
            self._take(block)
        self.runs.close()
        if self.head:
            raise Irregular("a table that does not begin")
        if self.spool:
            self.spool.close()

    def _take(self, lines: bytes) -> None:
        place = self.spool.add(lines) if self.spool else self.place
        self.place += len(lines)
        if self.head:
            begun = self.head.match(lines)
            if not begun:
                raise Irregular("a table that does not begin as one")
            self.head, lines, place = None, lines[begun.end() :], place + begun.end()
        if lines:
            self.runs.add(_FINDERS[self.layout.table](lines, self.layout, place))


def _find_posts(lines: bytes, layout: Layout, place: int) -> Ints:
    """Return (question's text order, whether it is an answer, -score, id, place, bytes).

    The best answer so comes first, and of a question that is given twice the last, whose "id" is minus its place.
    """
    found: list[tuple[int, ...]] = []
    for (id_, kind, parent, score), start, end in scan(lines, layout):
        if id_ is None or (score is None and (kind == b"1" or (kind == b"2" and parent is not None))):
            raise Irregular("a post without id or score")
        if kind == b"1":
            found.append((int(id_), 0, 0, -place - start, place + start, end - start))
        elif kind == b"2" and parent is not None and score is not None:
            found.append((int(parent), 1, -int(score), int(id_), place + start, end - start))
    rows = np.array(found, np.int64).reshape(-1, N_COLUMNS["posts"])
    rows[:, 0] = text_order(rows[:, 0])
    return rows


def _find_users(lines: bytes, layout: Layout, place: int) -> Ints:
    """Return (user, -place, bytes), the last first, of those with a name."""
    found: list[tuple[int, ...]] = []
    for (id_, name), start, end in scan(lines, layout):
        if id_ is None:
            raise Irregular("a user without id")
        if name:
            found.append((int(id_), -place - start, end - start))
    return np.array(found, np.int64).reshape(-1, N_COLUMNS["users"])


def _find_comments(lines: bytes, layout: Layout, place: int) -> Ints:
    """Return (post, id, place, bytes, user)."""
    found: list[tuple[int, ...]] = []
    for (id_, post, user), start, end in scan(lines, layout):
        if id_ is None:
            raise Irregular("a comment without id")
        if post is not None:
            found.append((int(post), int(id_), place + start, end - start, _NOBODY if user is None else int(user)))
    return np.array(found, np.int64).reshape(-1, N_COLUMNS["comments"])


_FINDERS: dict[str, Callable[[bytes, Layout, int], Ints]] = {
    "posts": _find_posts,
    "users": _find_users,
    "comments": _find_comments,
}
