from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stages.core import words
from stages.core.words import chunks, hash_grams, hash_words, normalise

texts = st.lists(st.text(alphabet=st.sampled_from("ab Z9_-.'\n\0é“”ﬁßÅ中 "), max_size=40), max_size=12)


def test_case_punctuation_spacing_and_unicode_form_do_not_count() -> None:
    assert normalise("  “DON’T  stop!”\n") == normalise("don't\tstop") == "don t stop"
    assert normalise("Å ﬁne") == normalise("A\u030a FINE") == "å fine"


def test_an_underscore_parts_words_with_and_without_other_letters() -> None:
    assert normalise("a_b") == "a b"
    assert normalise("é_b") == "é b"


@given(texts)
def test_words_are_numbered_as_normalise_parts_them(parts: list[str]) -> None:
    found = hash_words(parts)
    expected = [normalise(part).split() for part in parts]
    assert np.diff(found.offsets).tolist() == [len(item) for item in expected]
    flat = [word for item in expected for word in item]
    assert len(set(zip(flat, found.hashes.tolist(), strict=True))) == len(set(flat)) == len(set(found.hashes.tolist()))


@given(texts, st.integers(1, 6))
def test_grams_are_equal_where_their_words_are_and_stay_within_a_text(parts: list[str], n: int) -> None:
    numbers, offsets = hash_grams(hash_words(parts), n)
    split = [normalise(part).split() for part in parts]
    grams = [[tuple(item[i : i + n]) for i in range(len(item) - n + 1)] for item in split]
    assert np.diff(offsets).tolist() == [len(item) for item in grams]
    flat = [gram for item in grams for gram in item]
    assert len(set(zip(flat, numbers.tolist(), strict=True))) == len(set(flat)) == len(set(numbers.tolist()))


def test_numbers_do_not_change_from_machine_to_machine() -> None:
    assert hash_words(["barley soup"]).hashes.tolist() == GOLDEN


GOLDEN = [15347646128900829136, 1996631839199040092]


@given(texts, st.integers(1, 60))
def test_chunks_give_every_text_once_in_order(parts: list[str], size: int) -> None:
    before = words.CHUNK_BYTES
    try:
        words.CHUNK_BYTES = size
        found = list(chunks(pl.Series(parts, dtype=pl.String)))
    finally:
        words.CHUNK_BYTES = before
    assert [text for _, chunk in found for text in chunk] == parts
    assert [start for start, _ in found] == np.cumsum([0, *(len(chunk) for _, chunk in found)])[:-1].tolist()


def test_a_text_longer_than_a_chunk_is_a_chunk_of_its_own() -> None:
    long = "a " * words.CHUNK_BYTES
    assert [(start, len(chunk)) for start, chunk in chunks(pl.Series(["b", long, "c"]))] == [(0, 1), (1, 1), (2, 1)]
    assert len(hash_words([long]).hashes) == words.CHUNK_BYTES
