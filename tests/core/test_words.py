from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core import compiled, words
from stages.core.kernels import PLAIN, Kernels, compiled_kernels
from stages.core.words import _fold, _fold_characters, normalise

KERNELS = pytest.mark.parametrize("kernels", [PLAIN, compiled_kernels()], ids=["plain", "compiled"])
texts = st.lists(st.text(alphabet=st.sampled_from("ab Z9_-.'\n\0é“”ﬁßÅ中 "), max_size=40), max_size=12)


def test_case_punctuation_spacing_and_unicode_form_do_not_count() -> None:
    assert normalise("  “DON’T  stop!”\n") == normalise("don't\tstop") == "don t stop"
    assert normalise("Å ﬁne") == normalise("A\u030a FINE") == "å fine"


def test_an_underscore_parts_words_with_and_without_other_letters() -> None:
    assert normalise("a_b") == "a b"
    assert normalise("é_b") == "é b"


@given(st.text(alphabet=st.sampled_from("ab Z.'É“”ﬁßÅ中İΣς\u0301\u0345\u1100\u1161\uff76\uff9e\u01f0½"), max_size=12))
def test_characters_folded_alone_are_folded_as_in_the_text(text: str) -> None:
    assert _fold(text) == _fold_characters(text).encode().translate(words._FOLD)


def encoded(parts: list[str]) -> list[bytes]:
    return [part.encode() for part in parts]


@KERNELS
@settings(deadline=None)  # the first call compiles
@given(texts)
def test_words_are_numbered_as_normalise_parts_them(kernels: Kernels, parts: list[str]) -> None:
    found = kernels.hash_words(encoded(parts))
    expected = [normalise(part).split() for part in parts]
    assert np.diff(found.offsets).tolist() == [len(item) for item in expected]
    flat = [word for item in expected for word in item]
    assert len(set(zip(flat, found.hashes.tolist(), strict=True))) == len(set(flat)) == len(set(found.hashes.tolist()))


@KERNELS
@settings(deadline=None)  # the first call compiles
@given(texts, st.integers(1, 6))
def test_grams_are_equal_where_their_words_are_and_stay_within_a_text(
    kernels: Kernels, parts: list[str], n: int
) -> None:
    numbers, offsets = kernels.hash_grams(kernels.hash_words(encoded(parts)), n)
    split = [normalise(part).split() for part in parts]
    grams = [[tuple(item[i : i + n]) for i in range(len(item) - n + 1)] for item in split]
    assert np.diff(offsets).tolist() == [len(item) for item in grams]
    flat = [gram for item in grams for gram in item]
    assert len(set(zip(flat, numbers.tolist(), strict=True))) == len(set(flat)) == len(set(numbers.tolist()))


@KERNELS
def test_numbers_do_not_change_from_machine_to_machine(kernels: Kernels) -> None:
    assert kernels.hash_words([b"barley soup"]).hashes.tolist() == GOLDEN


GOLDEN = [15347646128900829136, 1996631839199040092]


@settings(deadline=None)
@given(texts, st.integers(1, 6))
def test_compiled_loops_give_the_same_numbers(parts: list[str], n: int) -> None:
    plain, fast = words.hash_words(encoded(parts)), compiled.hash_words(encoded(parts))
    assert plain.hashes.tolist() == fast.hashes.tolist()
    assert plain.offsets.tolist() == fast.offsets.tolist()
    for ours, theirs in zip(words.hash_grams(plain, n), compiled.hash_grams(fast, n), strict=True):
        assert ours.tolist() == theirs.tolist()


@KERNELS
@settings(deadline=None)  # the first call compiles
@given(texts, st.integers(1, 4), st.integers(1, 12))
def test_grams_that_pass_the_sieve_are_found_in_order(kernels: Kernels, parts: list[str], n: int, bits: int) -> None:
    found = kernels.hash_words(encoded(parts))
    numbers, offsets = kernels.hash_grams(found, n)
    sieve = np.arange(1 << bits) % 3 == 0
    expected = [
        (text, number)
        for text in range(len(parts))
        for number in numbers[offsets[text] : offsets[text + 1]].tolist()
        if (number >> (64 - bits)) % 3 == 0
    ]
    holders, grams = kernels.find_grams(found, n, sieve)
    assert list(zip(holders.tolist(), grams.tolist(), strict=True)) == expected


@KERNELS
def test_a_long_text_is_read_whole(kernels: Kernels) -> None:
    assert len(kernels.hash_words([b"a " * 500_000, b"b", b"c" * 1_000_000]).hashes) == 500_002
