"""compiled: the loops of `words` and `minhash`, compiled by numba: the same numbers, about 5 times as fast.

Worth it above some 100 MB of text: numba takes half a second to import. The first use on a machine compiles, for some
seconds; what it makes is kept beside this file, in __pycache__. The loops hold no lock, so threads run side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numba
import numpy as np

from stages.core.words import BASE, FOLD, I64, SPACE, U32, U64, Words, joined, power_tables

F = TypeVar("F", bound=Callable[..., Any])
_compile: Callable[[F], F] = numba.njit(nogil=True, cache=True)
_inline: Callable[[F], F] = numba.njit(inline="always")


def hash_words(texts: Sequence[bytes]) -> Words:
    """As `stages.core.words.hash_words`."""
    buffer, ends = joined(texts)
    longest = int(np.diff(ends, prepend=0).max(initial=1))
    hashes = np.empty(len(buffer) // 2 + 1, dtype=np.uint64)
    offsets = np.zeros(len(ends) + 1, dtype=np.int64)
    _hash_words(buffer, ends, FOLD, *power_tables(longest), hashes, offsets)
    return Words(hashes[: offsets[-1]], offsets)


def hash_grams(words: Words, n: int) -> tuple[U64, I64]:
    """As `stages.core.words.hash_grams`."""
    grams = np.empty(len(words.hashes), dtype=np.uint64)
    offsets = np.zeros(len(words.offsets), dtype=np.int64)
    _hash_grams(words.hashes, words.offsets, n, power_tables(n)[0][n - 1], grams, offsets)
    return grams[: offsets[-1]], offsets


def find_grams(words: Words, n: int, sieve: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[I64, U64]:
    """As `stages.core.words.find_grams`."""
    texts, grams = np.empty(len(words.hashes), dtype=np.int64), np.empty(len(words.hashes), dtype=np.uint64)
    shift = np.uint64(65 - len(sieve).bit_length())
    n_found = _find_grams(words.hashes, words.offsets, n, power_tables(n)[0][n - 1], sieve, shift, texts, grams)
    return texts[:n_found], grams[:n_found]


def signatures(shingles: U64, offsets: I64, permutations: tuple[U32, U32]) -> U32:
    """As `stages.core.minhash.signatures`."""
    result = np.empty((len(offsets) - 1, len(permutations[0])), dtype=np.uint32)
    _signatures(shingles, offsets, permutations[0], permutations[1], result)
    return result


def jaccard(a: U64, b: U64) -> float:
    """As `stages.core.minhash.jaccard`."""
    shared = _n_shared(a, b)
    return shared / (len(a) + len(b) - shared)


@_inline
def _mix(number: Any) -> Any:  # noqa: ANN401 - numpy's numbers, which mypy cannot tell apart here
    number ^= number >> np.uint64(33)
    number *= np.uint64(0xFF51AFD7ED558CCD)
    number ^= number >> np.uint64(33)
    number *= np.uint64(0xC4CEB9FE1A85EC53)
    return number ^ (number >> np.uint64(33))


@_compile
def _hash_words(buffer: Any, ends: I64, fold: Any, powers: U64, inverses: U64, hashes: U64, offsets: I64) -> None:  # noqa: ANN401
    longest = 0
    for text in range(len(ends)):
        longest = max(longest, ends[text] - (ends[text - 1] if text else 0))
    edges = np.empty(longest + 1, dtype=np.int64)  # where words begin and end, in turn
    prefixes = np.empty(longest + 1, dtype=np.uint64)  # of the sum over byte * power there
    n_words = start = 0
    for text in range(len(ends)):
        n_edges = 0
        prefix = np.uint64(0)
        in_word = False
        for at in range(start, ends[text]):  # no branch in it: where words end is anyone's guess
            byte = fold[buffer[at]]
            is_word = byte != SPACE
            edges[n_edges] = at - start
            prefixes[n_edges] = prefix
            n_edges += is_word != in_word
            in_word = is_word
            prefix += np.uint64(byte) * powers[at - start]
        for edge in range(0, n_edges, 2):
            hashes[n_words] = _mix((prefixes[edge + 1] - prefixes[edge]) * inverses[edges[edge]])
            n_words += 1
        start = ends[text]
        offsets[text + 1] = n_words


@_compile
def _hash_grams(words: U64, cuts: I64, n: int, top: Any, grams: U64, offsets: I64) -> None:  # noqa: ANN401
    n_grams = 0
    for text in range(len(cuts) - 1):
        value = np.uint64(0)
        for at in range(cuts[text], cuts[text + 1]):
            value = value * BASE + words[at]
            first = at - n + 1
            if first >= cuts[text]:
                grams[n_grams] = _mix(value)
                n_grams += 1
                value -= words[first] * top
        offsets[text + 1] = n_grams


@_compile
def _find_grams(words: U64, cuts: I64, n: int, top: Any, sieve: Any, shift: Any, texts: I64, grams: U64) -> int:  # noqa: ANN401
    n_found = 0
    for text in range(len(cuts) - 1):
        value = np.uint64(0)
        for at in range(cuts[text], cuts[text + 1]):
            value = value * BASE + words[at]
            first = at - n + 1
            if first >= cuts[text]:
                gram = _mix(value)
                if sieve[gram >> shift]:
                    texts[n_found] = text
                    grams[n_found] = gram
                    n_found += 1
                value -= words[first] * top
    return n_found


@_compile
def _signatures(shingles: U64, offsets: I64, multipliers: U32, addends: U32, result: U32) -> None:
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    hashes = np.empty(longest, dtype=np.uint32)
    for text in range(len(offsets) - 1):
        first = offsets[text]
        n = offsets[text + 1] - first
        for i in range(n):  # datasketch's mixing, `premix`
            value = np.uint32(shingles[first + i])
            value ^= value >> np.uint32(16)
            value = np.uint32(value * np.uint32(0x85EBCA6B))
            value ^= value >> np.uint32(13)
            value = np.uint32(value * np.uint32(0xC2B2AE35))
            hashes[i] = value ^ (value >> np.uint32(16))
        for k in range(len(multipliers)):
            a, b = multipliers[k], addends[k]
            least = np.uint32(0xFFFFFFFF)
            for i in range(n):
                least = min(least, np.uint32(a * hashes[i] + b))
            result[text, k] = least


@_compile
def _n_shared(a: U64, b: U64) -> int:
    i = j = n = 0
    while i < len(a) and j < len(b):
        x, y = a[i], b[j]
        n += x == y
        i += x <= y
        j += y <= x
    return n
