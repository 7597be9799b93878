"""words: texts as sequences of words, and words as numbers.

A word is a maximal run of letters and digits, its case folded: two texts that differ in case, punctuation, spacing or
Unicode form have the same words. Numbers stand for words and for runs of words ("grams") where millions are compared:
64 bits, the same on every machine, polynomial in the bytes modulo 2^64 and then mixed. Two different grams share a
number with probability about 2^-64.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

U64 = np.ndarray[Any, np.dtype[np.uint64]]
I64 = np.ndarray[Any, np.dtype[np.int64]]

# Bytes of text that are hashed together: working memory is some 60 times this. A longer text makes a longer chunk.
CHUNK_BYTES = 1 << 19

# ASCII: letters in lower case, digits as they are, all else a space. Above ASCII: bytes of words, folded already.
_FOLD = bytes(
    byte if byte >= 0x80 else ord(chr(byte).lower()) if chr(byte).isalnum() else ord(" ") for byte in range(256)
)
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2^64
_UNBASE = np.uint64(pow(int(_BASE), -1, 1 << 64))


@dataclass(frozen=True)
class Words:
    """The words of some texts in a row.

    hashes: (n_words,) one number a word. offsets: (n_texts + 1,) text i holds words offsets[i] to offsets[i + 1].
    """

    hashes: U64
    offsets: I64


def normalise(text: str) -> str:
    """Give the words of a text with one space between.

    >>> normalise("  Is “P = NP”? ﬁne_print!")
    'is p np fine print'
    """
    return " ".join(_fold(text).decode().split())


def _fold(text: str) -> bytes:
    """Fold the case of letters and put spaces for all that is no letter or digit, as UTF-8."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold()
        for character in {item for item in set(text) if item > "\x7f" and not item.isalnum()}:
            text = text.replace(character, " ")
    return text.encode().translate(_FOLD)


def hash_words(texts: Sequence[str]) -> Words:
    """Number the words of texts, which are those of `normalise(text).split()`."""
    encoded = [_fold(text) for text in texts]
    ends = np.cumsum(np.array([len(item) + 1 for item in encoded], dtype=np.int64))
    buffer = np.frombuffer(b" ".join([b"", *encoded, b""]), dtype=np.uint8)
    in_word = buffer != ord(" ")
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1  # the buffer begins and ends with a space
    first, after = edges[0::2], edges[1::2]
    powers, inverses = _powers(len(buffer))
    prefix = np.zeros(len(buffer) + 1, dtype=np.uint64)
    np.cumsum(buffer * powers[: len(buffer)], out=prefix[1:])
    hashes = mix((prefix[after] - prefix[first]) * inverses[first])
    return Words(hashes, np.concatenate([np.zeros(1, np.int64), np.searchsorted(first, ends)]))


def hash_grams(words: Words, n: int) -> tuple[U64, I64]:
    """Number the runs of n words within each text.

    Returns:
        (n_grams,) the numbers, and (n_texts + 1,) offsets as in `Words`.
    """
    n_grams = np.maximum(np.diff(words.offsets) - (n - 1), 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_grams)])
    n_runs = max(len(words.hashes) - (n - 1), 0)
    runs = np.zeros(n_runs, dtype=np.uint64)
    for k in range(n):  # Horner: sum over k of word_k * base^(n - 1 - k)
        runs *= _BASE
        runs += words.hashes[k : k + n_runs]
    within = np.arange(offsets[-1]) + np.repeat(words.offsets[:-1] - offsets[:-1], n_grams)
    return mix(runs[within]), offsets


def mix(numbers: U64) -> U64:
    """Spread every bit over all others: the finalizer of MurmurHash3, a bijection on 64 bits."""
    mixed = numbers ^ (numbers >> np.uint64(33))
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed


def chunks(texts: pl.Series) -> Iterator[tuple[int, list[str]]]:
    """Give (index of the first, texts) in parts of about CHUNK_BYTES each, so that memory is bounded."""
    ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    start = 0
    while start < len(texts):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + CHUNK_BYTES, side="right")), start + 1)
        yield start, texts.slice(start, stop - start).to_list()
        start = stop


_tables: tuple[U64, U64] = (np.ones(1, np.uint64), np.ones(1, np.uint64))


def _powers(n: int) -> tuple[U64, U64]:
    """Tables of base^i and base^-i modulo 2^64, at least n long, grown when a longer text comes."""
    global _tables
    if len(_tables[0]) < n:
        size = 1 << (n - 1).bit_length()
        powers, inverses = np.full(size, _BASE), np.full(size, _UNBASE)
        powers[0] = inverses[0] = 1
        _tables = np.multiply.accumulate(powers), np.multiply.accumulate(inverses)
    return _tables
