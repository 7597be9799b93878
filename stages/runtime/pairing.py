"""Prompts and their best responses, joined as they come and in any order, in bounded memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stages.common.errors import InputError

Fields = Sequence[Any] | Mapping[str, Any]  # plain JSON values

_CACHE_KIB = 64 * 1024  # what does not fit goes to a temporary file that SQLite makes and removes
_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -{cache};
    CREATE TABLE prompt (key TEXT PRIMARY KEY, fields TEXT);
    CREATE TABLE response (parent TEXT PRIMARY KEY, score INTEGER, number INTEGER, author TEXT, fields TEXT);
    CREATE TABLE author (key TEXT PRIMARY KEY, name TEXT);
    CREATE TABLE comment (parent TEXT, number INTEGER, fields TEXT);
    CREATE INDEX comments ON comment (parent, number);
"""
_BETTER = """
    INSERT INTO response VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (parent) DO UPDATE
    SET score = excluded.score, number = excluded.number, author = excluded.author, fields = excluded.fields
    WHERE excluded.score > score OR (excluded.score = score AND excluded.number < number)
"""
_PAIRS = """
    SELECT prompt.key, prompt.fields, response.score, response.fields, author.name
    FROM prompt LEFT JOIN response ON response.parent = prompt.key LEFT JOIN author ON author.key = response.author
    ORDER BY prompt.key
"""
_ORPHANS = "SELECT count(*) FROM response WHERE parent NOT IN (SELECT key FROM prompt)"


_COMMENTS = "SELECT fields FROM comment WHERE parent = ? ORDER BY number, rowid"


class Pair(NamedTuple):
    """A prompt and its best response; `response` and `score` are None where there is none."""

    key: str
    prompt: Any
    score: int | None
    response: Any  # None where there is none
    author: str | None  # name behind the response's author key, where it is known


class Pairing:
    """Collects prompts, responses and authors; then gives each prompt with its best response, by key.

    The best response has the highest score; of several, the lowest number (the earliest). A prompt given twice counts
    as the last, and in `n_repeated`. Fields are plain JSON values.
    """

    def __init__(self) -> None:
        self.n_repeated = 0  # prompts that took the place of one with the same key
        self._db = sqlite3.connect("", isolation_level=None)  # "": private, in memory while it is small

    def __enter__(self) -> Pairing:
        self._db.executescript(_TABLES.format(cache=_CACHE_KIB))
        self._db.execute("BEGIN")  # one transaction: each statement in its own took a millisecond
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.OperationalError):
            raise InputError(
                f"temporary file of the join: {error}; free space, or name another folder in SQLITE_TMPDIR"
            ) from error

    def add_prompt(self, key: str, fields: Fields) -> None:
        """Add a prompt under the key that its responses name."""
        row = (json.dumps(fields), key)
        if not self._db.execute("INSERT OR IGNORE INTO prompt (fields, key) VALUES (?, ?)", row).rowcount:
            self._db.execute("UPDATE prompt SET fields = ? WHERE key = ?", row)
            self.n_repeated += 1

    def add_response(self, parent: str, *, score: int, number: int, fields: Fields, author: str = "") -> None:
        """Add a response; it is kept if it is the best of its parent so far."""
        self._db.execute(_BETTER, (parent, score, number, author, json.dumps(fields)))

    def add_author(self, key: str, name: str) -> None:
        """Add the name behind an author key."""
        self._db.execute("INSERT OR REPLACE INTO author VALUES (?, ?)", (key, name))

    def add_comment(self, parent: str, *, number: int, fields: Fields) -> None:
        """Add a comment on a response, which `comments` gives by that response's key."""
        self._db.execute("INSERT INTO comment VALUES (?, ?, ?)", (parent, number, json.dumps(fields)))

    def comments(self, parent: str) -> list[Any]:
        """Return the fields of all comments of one parent, by number."""
        return [json.loads(fields) for (fields,) in self._db.execute(_COMMENTS, (parent,))]

    def name_of(self, author: str) -> str | None:
        """Return the name behind an author key, where it is known."""
        found = self._db.execute("SELECT name FROM author WHERE key = ?", (author,)).fetchone()
        return found[0] if found else None

    def n_orphans(self) -> int:
        """Return how many prompts are missing that responses were given for."""
        count: int = self._db.execute(_ORPHANS).fetchone()[0]
        return count

    def pairs(self) -> Iterator[Pair]:
        """Yield every prompt in the order of its key, as text."""
        for key, prompt, score, response, author in self._db.execute(_PAIRS):
            yield Pair(key, json.loads(prompt), score, json.loads(response) if response else None, author)
