"""words: texts as sequences of words, and words as numbers.

A word is a maximal run of letters and digits, its case folded: two texts that differ in case, punctuation, spacing or
Unicode form have the same words. Numbers stand for words and for runs of words ("grams") where millions are compared:
64 bits, the same on every machine, polynomial in the bytes modulo 2^64 and then mixed. Two different grams share a
number with probability about 2^-64.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

U8 = np.ndarray[Any, np.dtype[np.uint8]]
U32 = np.ndarray[Any, np.dtype[np.uint32]]
U64 = np.ndarray[Any, np.dtype[np.uint64]]
I64 = np.ndarray[Any, np.dtype[np.int64]]

# ASCII: letters in lower case, digits as they are, all else a space. Above ASCII: bytes of words, folded already.
_FOLD = bytes(
    byte if byte >= 0x80 else ord(chr(byte).lower()) if chr(byte).isalnum() else ord(" ") for byte in range(256)
)
FOLD = np.frombuffer(_FOLD, dtype=np.uint8)
SPACE = np.uint8(ord(" "))
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2^64
_UNBASE = np.uint64(pow(int(BASE), -1, 1 << 64))
_ASCII = bytes(range(0x80))


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
    return _lettered(text.encode()).translate(_FOLD)


def _lettered(encoded: bytes) -> bytes:
    """Change UTF-8 so that bytes above ASCII are of folded letters and digits; the ASCII ones stay as they are."""
    if encoded.isascii():
        return encoded
    text = encoded.decode()
    for character in set(encoded.translate(None, _ASCII).decode()):
        folded = _fold_alone(character)
        if folded is None:
            return _fold_characters(text).encode()
        encoded = encoded.replace(character.encode(), folded)
    return encoded


@lru_cache(maxsize=1 << 12)
def _fold_alone(character: str) -> bytes | None:
    """Fold one character above ASCII; None where its neighbours have a say, or its fold could be folded again."""
    folded = _fold_characters(character)
    parts = unicodedata.normalize("NFKC", character)[0], character
    joins = any(unicodedata.category(part)[0] == "M" or "\u1160" <= part <= "\u11ff" for part in parts)
    fixed = all(item <= "\x7f" or _fold_characters(item) == item for item in folded)
    return folded.encode() if fixed and not joins else None


def _fold_characters(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    for character in {item for item in set(text) if item > "\x7f" and not item.isalnum()}:
        text = text.replace(character, " ")
    return text


def joined(texts: Sequence[bytes]) -> tuple[U8, I64]:
    """Put texts, in UTF-8, in one array, a space after each; ASCII is left to `FOLD`.

    Returns:
        (n_bytes,) the bytes, and (n_texts,) where each text ends, its space included.
    """
    lettered = [_lettered(text) for text in texts]
    ends = np.cumsum(np.array([len(item) + 1 for item in lettered], dtype=np.int64))
    return np.frombuffer(b" ".join([*lettered, b""]), dtype=np.uint8), ends


def hash_words(texts: Sequence[bytes]) -> Words:
    """Number the words of texts, in UTF-8, which are those of `normalise(text).split()`."""
    plain, ends = joined(texts)
    buffer = np.concatenate([np.full(1, SPACE, np.uint8), FOLD[plain]])  # begins and ends with a space
    in_word = buffer != SPACE
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
    first, after = edges[0::2], edges[1::2]
    powers, inverses = power_tables(len(buffer))
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
        runs *= BASE
        runs += words.hashes[k : k + n_runs]
    within = np.arange(offsets[-1]) + np.repeat(words.offsets[:-1] - offsets[:-1], n_grams)
    return mix(runs[within]), offsets


def find_grams(words: Words, n: int, sieve: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[I64, U64]:
    """Find the runs of n words whose number passes a sieve.

    Args:
        words: of the texts.
        n: words a run.
        sieve: (2^k,) whether a number with these highest k bits passes, k > 0.

    Returns:
        (n_found,) the texts they are in, ascending, and (n_found,) their numbers, in order.
    """
    grams, offsets = hash_grams(words, n)
    at = np.flatnonzero(sieve[grams >> np.uint64(65 - len(sieve).bit_length())])
    return np.searchsorted(offsets, at, side="right") - 1, grams[at]


def mix(numbers: U64) -> U64:
    """Spread every bit over all others: the finalizer of MurmurHash3, a bijection on 64 bits."""
    mixed = numbers ^ (numbers >> np.uint64(33))
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed


_tables: tuple[U64, U64] = (np.ones(1, np.uint64), np.ones(1, np.uint64))


def power_tables(n: int) -> tuple[U64, U64]:
    """Tables of base^i and base^-i modulo 2^64, at least n long, grown when a longer text comes."""
    global _tables
    if len(_tables[0]) < n:
        size = 1 << (n - 1).bit_length()
        powers, inverses = np.full(size, BASE), np.full(size, _UNBASE)
        powers[0] = inverses[0] = 1
        _tables = np.multiply.accumulate(powers), np.multiply.accumulate(inverses)
    return _tables
