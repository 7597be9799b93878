"""dialogues: rows of messages taken apart once, so that all that is compared shares one pass over the text."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from stages.core.kernels import Kernels
from stages.core.words import I64, Words

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Messages(NamedTuple):
    """Rows as messages, row after row."""

    contents: list[bytes]  # of every message, in UTF-8
    is_user: Mask  # (n_messages,) else the assistant's
    cuts: I64  # (n_rows + 1,) row i has the messages cuts[i] to cuts[i + 1]

    def text(self, row: int, *, user: bool | None = None) -> str:
        """What is said in a row, by one side or by both."""
        messages = range(int(self.cuts[row]), int(self.cuts[row + 1]))
        said = [self.contents[i] for i in messages if user is None or bool(self.is_user[i]) == user]
        return b"\n\n".join(said).decode()


class Dialogues(NamedTuple):
    """Rows and their words."""

    messages: Messages
    words: Words  # of every message

    @property
    def whole(self) -> Words:
        """The words of each row, whoever says them."""
        return Words(self.words.hashes, self.words.offsets[self.messages.cuts])

    @property
    def responses(self) -> Words:
        """The words of each row's responses, one after the other."""
        n_words = np.diff(self.words.offsets)
        spoken = np.repeat(~self.messages.is_user, n_words)
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.where(self.messages.is_user, 0, n_words))])
        return Words(self.words.hashes[spoken], ends[self.messages.cuts])


def take_apart(messages: pl.Series) -> Messages:
    """Flatten a column of dialogues (MESSAGES)."""
    flat = messages.explode(empty_as_null=False, keep_nulls=False)
    counts = messages.list.len().fill_null(0).to_numpy().astype(np.int64)
    return Messages(
        flat.struct.field("content").fill_null("").cast(pl.Binary).to_list(),
        (flat.struct.field("role") == "user").fill_null(value=False).to_numpy(),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
    )


def chosen(messages: Messages, rows: I64) -> Messages:
    """The messages of some rows, ascending."""
    firsts, counts = messages.cuts[rows], messages.cuts[rows + 1] - messages.cuts[rows]
    cuts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    kept = np.arange(cuts[-1]) + np.repeat(firsts - cuts[:-1], counts)
    return Messages([messages.contents[i] for i in kept.tolist()], messages.is_user[kept], cuts)


def read_words(messages: Messages, kernels: Kernels) -> Dialogues:
    """Number the words of every message."""
    return Dialogues(messages, kernels.hash_words(messages.contents))
