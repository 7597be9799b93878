"""Accepted replies of endpoints, in SQLite: outside every DVC out, shared by all stages, runs and experiments.

Three tables beside the replies make it safe to ask from several processes at once:
    claims    which run asks for what at this moment, so that two runs share the work instead of paying twice; a run
              holds a lock on a file under askers/, which its death releases: claims of the dead count for nothing
    accounts  dollars that each model has cost; what a call may cost is added before it and put right after it, so a
              call under way when its run was killed counts in full
    batches   batches that an endpoint works on (stages/runtime/api/batches.py)
"""

import hashlib
import json
import secrets
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from stages.common.errors import JudgeError
from stages.core.reply import Reply

if sys.platform != "win32":
    import fcntl

TABLES = (
    "replies (key TEXT PRIMARY KEY, reply TEXT, digest TEXT)",
    "claims (key TEXT PRIMARY KEY, owner TEXT)",
    "accounts (name TEXT PRIMARY KEY, dollars REAL)",
    "batches (name TEXT PRIMARY KEY, account TEXT, owner TEXT, batch_id TEXT, keys TEXT, dollars REAL)",
)


class OpenBatch(NamedTuple):
    """A batch whose answers have not been taken."""

    name: str
    owner: str  # who sends it
    batch_id: str | None  # the endpoint's number; None: not sent yet
    keys: list[str]
    dollars: float  # set aside; 0 when its cost is settled


class ReplyCache:
    """Accepted replies by request key. Every row carries its own checksum: a damaged one is asked for anew."""

    def __init__(self, connection: sqlite3.Connection, *, path: Path, owner: str) -> None:
        self.connection = connection
        self.path = path
        self.owner = owner

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
                connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing, a power cut the last second
                for table in TABLES:
                    connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            with _asker(path.parent / "askers", path) as owner:
                yield cls(connection, path=path, owner=owner)
        finally:
            connection.close()

    def read(self, keys: Sequence[str]) -> dict[str, Reply]:
        """The sound rows among `keys`; damaged ones are removed, and said so.

        Raises:
            JudgeError: the database cannot be read.
        """
        with _in_one_sentence(self.path):
            return self._read(keys)

    def claim(self, key: str) -> Reply | Literal["ours", "taken"]:
        """The reply, if there is one by now; else whether it is on us to ask for it.

        Raises:
            JudgeError: the database cannot be written.
        """
        with self._transaction():
            found = self._read([key])
            if found:
                return found[key]
            if self._taken([key]):
                return "taken"
            self.connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (key, self.owner))
            return "ours"

    def free(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that nobody asks for any more, because the reply is there or the asker is not."""
        with _in_one_sentence(self.path):
            taken = self._taken(keys)
        return [key for key in keys if key not in taken]

    def finish(self, key: str, reply: Reply | None) -> Reply | None:
        """Give up the claim and keep the reply, if there is one; gives the one that is kept: the first that came.

        Raises:
            JudgeError: the database cannot be written.
        """
        with self._transaction():
            self.connection.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner))
            return None if reply is None else self._write(key, reply)

    def write(self, key: str, reply: Reply) -> Reply:
        """Keep a reply, and give the one that is kept: another run may have been first.

        Raises:
            JudgeError: the database cannot be written.
        """
        with self._transaction():
            return self._write(key, reply)

    def spend(self, account: str, amount: float, *, limit: float | None) -> bool:
        """Add dollars to an account, unless that would take it beyond `limit`; whether it was done.

        Raises:
            JudgeError: the database cannot be written.
        """
        with self._transaction():
            return self._spend(account, amount, limit)

    def open_batch(
        self, name: str, account: str, keys: Sequence[str], amount: float, *, limit: float | None
    ) -> Literal["opened", "covered", "capped"]:
        """Write down a batch that is about to be sent, its dollars set aside.

        Nothing is done where another batch holds one of the requests, or the dollars go beyond `limit`.

        Raises:
            JudgeError: the database cannot be written.
        """
        with self._transaction():
            if set(keys) & {key for batch in self._batches(account) for key in batch.keys}:
                return "covered"
            if not self._spend(account, amount, limit):
                return "capped"
            row = (name, account, self.owner, None, json.dumps(list(keys)), amount)
            self.connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", row)
            return "opened"

    def name_batch(self, name: str, batch_id: str) -> None:
        """Write down the endpoint's number of a batch."""
        with self._transaction():
            self.connection.execute("UPDATE batches SET batch_id = ? WHERE name = ?", (batch_id, name))

    def batches(self, account: str) -> list[OpenBatch]:
        """The batches of an account whose answers have not all been taken."""
        with _in_one_sentence(self.path):
            return self._batches(account)

    def _batches(self, account: str) -> list[OpenBatch]:
        rows = self.connection.execute(
            "SELECT name, owner, batch_id, keys, dollars FROM batches WHERE account = ? ORDER BY rowid", (account,)
        ).fetchall()
        return [OpenBatch(name, owner, number, json.loads(keys), paid) for name, owner, number, keys, paid in rows]

    def close_batch(
        self, name: str, replies: Mapping[str, Reply], keys: Sequence[str], *, cost: float | None
    ) -> float | None:
        """Keep a batch's replies, forget the requests `keys` of it, and settle its cost (None: as set aside).

        Requests of other runs stay in it until those take them.

        Returns:
            The dollars that were set aside; None if another run has settled it.
        """
        with self._transaction():
            row = self.connection.execute(
                "SELECT account, keys, dollars FROM batches WHERE name = ?", (name,)
            ).fetchone()
            if row is None:
                return None
            for key, reply in replies.items():
                self._write(key, reply)
            account, aside = row[0], row[2]
            if cost is not None and aside:
                self._spend(account, cost - aside, None)
            gone = set(keys)
            left = [key for key in json.loads(row[1]) if key not in gone]
            if left:
                self.connection.execute(
                    "UPDATE batches SET keys = ?, dollars = 0 WHERE name = ?", (json.dumps(left), name)
                )
            else:
                self.connection.execute("DELETE FROM batches WHERE name = ?", (name,))
            return float(aside)

    def is_alive(self, owner: str) -> bool:
        """Whether the run of that name still runs; this one does."""
        return owner == self.owner or _is_alive(self.path.parent / "askers" / owner)

    def _spend(self, account: str, amount: float, limit: float | None) -> bool:
        self.connection.execute("INSERT OR IGNORE INTO accounts VALUES (?, 0)", (account,))
        done = self.connection.execute(
            "UPDATE accounts SET dollars = max(0, dollars + ?1) WHERE name = ?2 AND (?3 IS NULL OR dollars + ?1 <= ?3)",
            (amount, account, limit),
        )
        return done.rowcount == 1

    def spent(self, account: str) -> float:
        """Dollars on an account."""
        with _in_one_sentence(self.path):
            row = self.connection.execute("SELECT dollars FROM accounts WHERE name = ?", (account,)).fetchone()
        return float(row[0]) if row else 0.0

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

    def _write(self, key: str, reply: Reply) -> Reply:
        text = json.dumps(reply._asdict(), ensure_ascii=False)
        self.connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", (key, text, _digest(key, text)))
        return self._read([key]).get(key, reply)

    def _taken(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that another living run asks for."""
        owners: dict[str, str] = {}
        for key in keys:
            row = self.connection.execute("SELECT owner FROM claims WHERE key = ?", (key,)).fetchone()
            if row is not None and row[0] != self.owner:
                owners[key] = row[0]
        alive = {owner for owner in set(owners.values()) if _is_alive(self.path.parent / "askers" / owner)}
        return {key for key, owner in owners.items() if owner in alive}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _in_one_sentence(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")


@contextmanager
def _asker(folder: Path, path: Path) -> Iterator[str]:
    """A name for this run, and a locked file of that name for as long as it lives."""
    name = secrets.token_hex(8)
    with _in_one_sentence(path):
        folder.mkdir(exist_ok=True)
        file = (folder / name).open("w")
    try:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield name
    finally:
        file.close()
        with suppress(OSError):
            (folder / name).unlink()


def _is_alive(path: Path) -> bool:
    """Whether the run behind the file still holds its lock; the file of a dead one is removed."""
    if sys.platform == "win32":
        return False
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    path.unlink(missing_ok=True)
    return False


@contextmanager
def _in_one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise JudgeError(f"{path}: the reply cache fails, {error}; free space, or move the file away") from None


def _digest(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()
