"""stack_exchange_lines: the threads of one site from the bytes of its dump, a range of questions at a time.

The second of two passes, after `stack_exchange_index`: it chooses the best answers of a range, and reads those rows and
their questions alone. Both rely on dumps being one row a line; what is otherwise is `Irregular`, and
`stack_exchange_expat`, which gives the same threads, reads the site.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.core.posts import ANSWER, COMMENT, QUESTION, Row, Thread
from stages.core.rows import Tally
from stages.core.xml_rows import Ints, from_text_order, some_attributes, unescaped
from stages.runtime.row_store import RowStore, open_store
from stages.runtime.sorted_runs import Runs
from stages.sources.stack_exchange_index import N_COLUMNS

_BATCH_BYTES = 4 * 2**20  # of rows read at a time
_ID = re.compile(r"0|-?[1-9][0-9]{0,16}")


def ranges(work: Path, *, memory_bytes: int) -> list[tuple[int, int]]:
    """Cut the questions of an indexed site into ranges for `threads`, each of about `memory_bytes` of rows."""
    runs = Runs(work, "posts", n_columns=N_COLUMNS["posts"])
    if not runs.n_rows:
        return []
    sample = runs.between(*runs.bounds(10_000)[0])
    return runs.bounds(max(500, int(memory_bytes / sample[:, 5].mean())))


def threads(work: Path, low: int, high: int, *, tally: Tally) -> Iterator[Thread]:
    """Yield the questions of a range that have an answer, by id as text.

    Args:
        work: folder of the first pass.
        low: where the range begins.
        high: where it has ended.
        tally: counts the questions, those unanswered, and what is beside.

    Raises:
        Irregular: a row that is needed is not one by XML's rules.
    """
    reader = _Reader(work)
    try:
        for batch in _batches(_best(reader.posts.between(low, high), tally)):
            yield from reader.threads(batch)
    finally:
        reader.close()


def _best(posts: Ints, tally: Tally) -> Ints:
    """Return (question, its place and bytes, answer, its place and bytes) of each answered question, (n, 6)."""
    is_answer = posts[:, 1] == 1
    is_first = np.ones(len(posts), np.bool_)
    is_first[1:] = (posts[1:, :2] != posts[:-1, :2]).any(axis=1)
    asked, best = posts[is_first & ~is_answer], posts[is_first & is_answer]
    known = np.isin(best[:, 0], asked[:, 0], assume_unique=True)
    has_answer = np.isin(asked[:, 0], best[:, 0], assume_unique=True)
    tally.n_read += len(asked)
    n_answered = int(known.sum())
    n_again, n_missing = int((~is_answer).sum()) - len(asked), len(best) - n_answered
    tally.left_out += Counter({"unanswered": len(asked) - n_answered})
    tally.aside += Counter({"questions given again": n_again, "questions missing that were answered": n_missing})
    asked, best = asked[has_answer], best[known]
    return np.column_stack((from_text_order(asked[:, 0]), asked[:, 4:6], best[:, 3:6]))


def _batches(pairs: Ints) -> Iterator[Ints]:
    """Cut pairs so that the rows of each part have some _BATCH_BYTES."""
    if len(pairs):
        number = np.cumsum(pairs[:, 2] + pairs[:, 5]) // _BATCH_BYTES
        yield from np.split(pairs, np.flatnonzero(np.diff(number)) + 1)


class _Reader:
    """Reads rows of one site by their places."""

    def __init__(self, work: Path) -> None:
        self.posts, self.users, self.comments = (
            Runs(work, table, n_columns=N_COLUMNS[table]) for table in ("posts", "users", "comments")
        )
        self.stores = {table: open_store(work, table) for table in N_COLUMNS}

    def close(self) -> None:
        """Give the files back."""
        for store in self.stores.values():
            if store:
                store.close()

    def threads(self, pairs: Ints) -> Iterator[Thread]:
        """Yield the threads of some pairs as `_best` gives them."""
        texts = _Texts()
        read = self._store("posts").read
        for _, q_place, q_bytes, _, a_place, a_bytes in pairs.tolist():
            texts.add(read(q_place, q_bytes), QUESTION)
            texts.add(read(a_place, a_bytes), ANSWER)
        posts = texts.rows()
        questions, answers = posts[0::2], posts[1::2]
        comments = self._comments(pairs[:, 3], questions, answers)
        owners = [answer.get("OwnerUserId", "") for answer in answers]
        askers = [question.get("OwnerUserId", "") for question in questions]
        names = self._names({owner for owner in (*owners, *askers) if _ID.fullmatch(owner)})
        for i, key in enumerate(pairs[:, 0].tolist()):
            asker, answerer = names.get(askers[i]), names.get(owners[i])
            yield Thread(str(key), questions[i], answers[i], asker, answerer, comments.get(i, ()))

    def _names(self, users: set[str]) -> dict[str, str]:
        wanted = np.array(sorted(map(int, users)), np.int64)
        rows = self.users.of(wanted) if len(wanted) and self.users.n_rows else np.empty((0, 3), np.int64)
        texts = _Texts()
        for _, place, n_bytes in rows.tolist():
            texts.add(self._store("users").read(-place, n_bytes), ("DisplayName",))
        names: dict[str, str] = {}
        for user, row in zip(rows[:, 0].tolist(), texts.rows(), strict=True):
            names.setdefault(str(user), row["DisplayName"])
        return names

    def _comments(self, ids: Ints, questions: list[Row], answers: list[Row]) -> dict[int, tuple[Row, ...]]:
        """Return the comments on the answers whose asker and answerer both comment, by the place of the pair."""
        if not self.comments.n_rows:
            return {}
        rows = self.comments.of(np.unique(ids))
        firsts = np.searchsorted(rows[:, 0], ids)
        lasts = np.searchsorted(rows[:, 0], ids, side="right")
        there: dict[int, int] = {}
        texts = _Texts()
        for i, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
            both = {questions[i].get("OwnerUserId"), answers[i].get("OwnerUserId")}
            if len(both) == 2 and None not in both and both <= set(map(str, rows[first:last, 4].tolist())):
                there[i] = last - first
                for _, _, place, n_bytes, _ in rows[first:last].tolist():
                    texts.add(self._store("comments").read(place, n_bytes), COMMENT)
        read = iter(texts.rows())
        return {i: tuple(next(read) for _ in range(n)) for i, n in there.items()}

    def _store(self, table: str) -> RowStore:
        store = self.stores[table]
        assert store is not None, "a table with runs has a store"
        return store


class _Texts:
    """Attributes of many rows, whose references are resolved together."""

    def __init__(self) -> None:
        self.names: list[tuple[str, ...]] = []
        self.values: list[bytes] = []

    def add(self, row: bytes, wanted: tuple[str, ...]) -> None:
        names, values = some_attributes(row, wanted)
        self.names.append(names)
        self.values += values

    def rows(self) -> list[Row]:
        texts = iter(unescaped(self.values))
        return [dict(zip(names, texts, strict=False)) for names in self.names]
