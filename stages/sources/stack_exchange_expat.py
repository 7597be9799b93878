"""stack_exchange_expat: the threads of one site by an XML parser and SQLite, with errors that say where.

This is the reader whose results define what is right; `stack_exchange_lines` gives the same from dumps as they are
published, many times faster. The answer is the one with the highest score, compared as integers; of several, the one
with the lowest id. It is found among the posts themselves: AnswerCount and AcceptedAnswerId are not read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.parsers import expat

from stages.common.errors import InputError
from stages.core.posts import ANSWER, COMMENT, QUESTION, Row, Thread
from stages.core.rows import Tally
from stages.runtime.pairing import Pairing

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MAX_ROW_BYTES = 32 * 2**20  # of XML that holds no start of a row: a post has at most some 100,000
_CHUNK_BYTES = 2**20


def threads(
    files: Sequence[Path], tables: Sequence[str], *, max_post_chars: int, max_expansion: int, tally: Tally
) -> Iterator[Thread]:
    """Yield every question of a site that has an answer, by its id as text.

    Args:
        files: archives and XML files of the site.
        tables: those to read, of posts, users and comments.
        max_post_chars: a longer body is cut, to one character more, so that it can be told.
        max_expansion: times that an archive's content may be larger than the archive.
        tally: counts the questions, those unanswered, and what is beside.

    Raises:
        InputError: a file is damaged or hostile.
    """
    with Pairing() as pairing:
        _collect(files, tables, pairing, max_post_chars=max_post_chars, max_expansion=max_expansion)
        for pair in pairing.pairs():
            tally.n_read += 1
            if pair.response is None:
                tally.left_out["unanswered"] += 1
                continue
            question, answer = pair.prompt, pair.response
            asker = pairing.name_of(question.get("OwnerUserId", ""))
            comments = pairing.comments(answer["Id"]) if "comments" in tables else []
            yield Thread(pair.key, question, answer, asker, pair.author, _by_both(comments, question, answer))
        tally.aside += Counter(
            {
                "questions missing that were answered": pairing.n_orphans(),
                "questions given again": pairing.n_repeated,
            }
        )


def _by_both(comments: list[Row], question: Row, answer: Row) -> tuple[Row, ...]:
    there = {comment.get("UserId") for comment in comments}
    both = {question.get("OwnerUserId"), answer.get("OwnerUserId")}
    return tuple(comments) if len(both) == 2 and None not in both and both <= there else ()


def _collect(
    files: Sequence[Path], tables: Sequence[str], pairing: Pairing, *, max_post_chars: int, max_expansion: int
) -> None:
    handlers = {
        "posts": lambda row: _add_post(row, pairing, max_post_chars),
        "users": lambda row: _add_user(row, pairing),
        "comments": lambda row: _add_comment(row, pairing),
    }

    found: list[str] = []

    def parser(path: Path, name: str) -> _RowParser:
        table = Path(name).stem.lower()
        found.append(table)
        return _RowParser(path, table, handlers[table])

    for path in files:
        if path.suffix == ".7z":
            from stages.runtime.archives import stream_members  # slow to import, and plain files do without

            names = [f"{table.capitalize()}.xml" for table in tables]
            stream_members(path, names, partial(parser, path), max_expansion=max_expansion, passing=InputError)
        else:
            _read_xml(path, parser(path, path.name))
    if found.count("posts") != 1:
        raise InputError(f"{files[0]}: a site must have one Posts.xml, got {found.count('posts')}; mend the origin")


def _add_post(row: Row, pairing: Pairing, max_post_chars: int) -> None:
    kind = row.get("PostTypeId")
    if kind == "1":
        _integer(row, "Score")
        pairing.add_prompt(row["Id"], _kept(row, QUESTION, max_post_chars))
    elif kind == "2" and "ParentId" in row:
        pairing.add_response(
            row["ParentId"],
            score=_integer(row, "Score"),
            number=_integer(row, "Id"),
            fields=_kept(row, ANSWER, max_post_chars),
            author=row.get("OwnerUserId", ""),
        )


def _add_user(row: Row, pairing: Pairing) -> None:
    if row.get("DisplayName"):
        pairing.add_author(row["Id"], row["DisplayName"])


def _add_comment(row: Row, pairing: Pairing) -> None:
    if "PostId" in row:
        pairing.add_comment(row["PostId"], number=_integer(row, "Id"), fields=_kept(row, COMMENT, None))


def _kept(row: Row, names: Sequence[str], max_post_chars: int | None) -> Row:
    kept = {name: row[name] for name in names if name in row}
    if max_post_chars is not None and "Body" in kept:
        kept["Body"] = kept["Body"][: max_post_chars + 1]
    return kept


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

    def close(self) -> None:
        self.feed(b"", last=True)

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


def _read_xml(path: Path, parser: _RowParser) -> None:
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            parser.feed(data)
    parser.close()
