"""kernels: the loops over bytes, words and shingles, in two makes that give the same numbers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from stages.core import minhash, words
from stages.core.words import I64, U32, U64, Words


class Kernels(NamedTuple):
    """What costs the time, as functions."""

    hash_words: Callable[[Sequence[bytes]], Words]
    hash_grams: Callable[[Words, int], tuple[U64, I64]]
    find_grams: Callable[[Words, int, np.ndarray[Any, np.dtype[np.bool_]]], tuple[I64, U64]]
    signatures: Callable[[U64, I64, tuple[U32, U32]], U32]
    jaccard: Callable[[U64, U64], float]


PLAIN = Kernels(words.hash_words, words.hash_grams, words.find_grams, minhash.signatures, minhash.jaccard)


def compiled_kernels() -> Kernels:
    """Compile them, or load what was compiled; half a second or more."""
    from stages.core import compiled

    return Kernels(compiled.hash_words, compiled.hash_grams, compiled.find_grams, compiled.signatures, compiled.jaccard)
