"""Accepted replies of endpoints, in SQLite: outside every DVC out, shared by all stages and runs."""

import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.core.replies import Reply
from stages.errors import JudgeError


class ReplyCache:
    """Accepted replies by request key. Every row carries its own checksum: a damaged one is asked for anew."""

    def __init__(self, connection: sqlite3.Connection, *, path: Path) -> None:
        self.connection = connection
        self.path = path

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["ReplyCache"]:
        """Open or make the database. WAL and a busy timeout make it safe under concurrent runs and kill -9.

        Raises:
            JudgeError: the file is no SQLite database, or cannot be written.
        """
        with _in_one_sentence(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            with _in_one_sentence(path):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT, digest TEXT)")
            yield cls(connection, path=path)
        finally:
            connection.close()

    def read(self, keys: Sequence[str]) -> dict[str, Reply]:
        """The sound rows among `keys`; damaged ones are removed, and said so.

        Raises:
            JudgeError: the database cannot be read.
        """
        with _in_one_sentence(self.path):
            return self._read(keys)

    def _read(self, keys: Sequence[str]) -> dict[str, Reply]:
        found: dict[str, Reply] = {}
        for key in dict.fromkeys(keys):
            row = self.connection.execute("SELECT reply, digest FROM replies WHERE key = ?", (key,)).fetchone()
            if row is None:
                continue
            if row[1] == _digest(key, row[0]):
                found[key] = Reply(**json.loads(row[0]))
            else:  # bit rot, or a hand in it
                self.connection.execute("DELETE FROM replies WHERE key = ?", (key,))
                print(f"reply cache: entry {key[:12]} is damaged and is asked for again", file=sys.stderr)
        return found

    def write(self, key: str, reply: Reply) -> Reply:
        """Keep a reply, and give the one that is kept: another run may have been first.

        Raises:
            JudgeError: the database cannot be written.
        """
        text = json.dumps(reply._asdict(), ensure_ascii=False)
        with _in_one_sentence(self.path):
            self.connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", (key, text, _digest(key, text)))
        return self.read([key]).get(key, reply)


@contextmanager
def _in_one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise JudgeError(f"{path}: the reply cache fails, {error}; free space, or move the file away") from None


def _digest(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()
