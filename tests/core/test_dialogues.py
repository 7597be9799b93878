from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from stages.core.dialogues import Messages, chosen, read_words, take_apart
from stages.core.kernels import PLAIN
from stages.schema import MESSAGES
from tests.curation import turns

ROWS = pl.Series([turns("Why is it?", "So."), turns("Go on.", "And é.", "More", "No, no."), [], None], dtype=MESSAGES)


def said(messages: Messages) -> list[list[bytes]]:
    return [messages.contents[a:b] for a, b in zip(messages.cuts[:-1], messages.cuts[1:], strict=True)]


def test_messages_are_flattened_row_by_row() -> None:
    taken = take_apart(ROWS)
    assert said(taken) == [[b"Why is it?", b"So."], [b"Go on.", "And é.".encode(), b"More", b"No, no."], [], []]
    assert taken.is_user.tolist() == [True, False, True, False, True, False]


@pytest.mark.parametrize("rows", [[], [0], [1], [1, 3], [0, 1, 2, 3]])
def test_chosen_rows_are_as_they_were(rows: list[int]) -> None:
    taken = take_apart(ROWS)
    part = chosen(taken, np.array(rows, dtype=np.int64))
    assert said(part) == [said(taken)[i] for i in rows]
    assert part.is_user.tolist() == [x for i in rows for x in taken.is_user[taken.cuts[i] : taken.cuts[i + 1]].tolist()]


def test_words_are_those_of_the_row_and_of_its_responses() -> None:
    rows = read_words(take_apart(ROWS), PLAIN)
    whole = PLAIN.hash_words([b"why is it so", "go on and é more no no".encode(), b"", b""])
    responses = PLAIN.hash_words([b"so", "and é no no".encode(), b"", b""])
    for found, expected in ((rows.whole, whole), (rows.responses, responses)):
        assert found.hashes.tolist() == expected.hashes.tolist()
        assert found.offsets.tolist() == expected.offsets.tolist()


def test_text_is_what_one_side_says_or_both() -> None:
    taken = take_apart(ROWS)
    assert taken.text(1) == "Go on.\n\nAnd é.\n\nMore\n\nNo, no."
    assert (taken.text(1, user=True), taken.text(1, user=False)) == ("Go on.\n\nMore", "And é.\n\nNo, no.")
