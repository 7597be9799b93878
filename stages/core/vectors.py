"""vectors: texts as points, for draws that look at likeness and for the measures of a draw.

A text becomes the TF-IDF of its words (Salton & Buckley 1988: 1 + ln tf, times 1 + ln((1 + N) / (1 + df))), hashed with
a sign into N_DIMENSIONS (Weinberger et al. 2009): two texts' cosine is kept up to an error of about N_DIMENSIONS^-1/2.
No model, no vocabulary; a word is that of `stages.core.words`.

Vectors are **fixed-point**: whole numbers in float32, of length SCALE. By Cauchy-Schwarz every partial sum of a dot
product of two is a whole number of at most 2^24, which float32 holds exactly. So a similarity has the same bits for any
order of additions: any number of threads, any BLAS, one row at a time or a thousand. Equal similarities are equal, and
ties can be broken by row.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from stages.core.words import hash_words, mix

F32 = np.ndarray[Any, np.dtype[np.float32]]
F64 = np.ndarray[Any, np.dtype[np.float64]]
I64 = np.ndarray[Any, np.dtype[np.int64]]

N_DIMENSIONS = 384
SCALE = 4064.0  # 2^12 less what rounding may add to the length of MAX_DIMENSIONS numbers: sqrt(4096) / 2
ONE = SCALE**2  # a similarity that stands for cosine 1
MAX_DIMENSIONS = 4096

_BUCKET_BITS = 18
_N_BUCKETS = 1 << _BUCKET_BITS  # words that share a bucket count as one: of 20,000 words in use, 1 in 13 shares its own
_N_COUNTED = 50_000  # texts that document frequencies are counted in
_CHUNK_BYTES = 1 << 19  # of text that are taken apart together; a longer text makes a longer chunk


def tfidf(texts: pl.Series) -> F32:
    """Give the fixed-point vectors of texts, shape (n, N_DIMENSIONS); a text without words is 0.

    Some 20 MB of text a CPU second; memory is that of the result and a chunk.
    """
    weights = _signed_idf(texts.gather_every(max(1, -(-len(texts) // _N_COUNTED))))
    columns, _ = _hashing()
    vectors = np.zeros((len(texts), N_DIMENSIONS), dtype=np.float32)
    for start, chunk in _chunks(texts):
        rows, buckets, counts = _terms(chunk)
        values = (1 + np.log(counts)) * weights[buckets]
        places = rows * N_DIMENSIONS + columns[buckets]
        sums = np.bincount(places, weights=values, minlength=len(chunk) * N_DIMENSIONS)
        vectors[start : start + len(chunk)] = fixed_point(sums.reshape(len(chunk), N_DIMENSIONS))
    return vectors


def fixed_point(vectors: np.ndarray[Any, Any]) -> F32:
    """Scale rows to length SCALE and round them, shape (n, at most MAX_DIMENSIONS); a row of zeros stays.

    >>> fixed_point(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[2438., 3251.],
           [   0.,    0.]], dtype=float32)
    """
    assert vectors.shape[1] <= MAX_DIMENSIONS, "longer vectors would not have exact products"
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return np.rint(wide * (SCALE / np.where(lengths > 0, lengths, 1))).astype(np.float32)


def similarities(some: F32, others: F32) -> F32:
    """Exact similarities in units of 1 / ONE, shape (n_some, n_others)."""
    return np.asarray(some @ others.T, dtype=np.float32)


def _terms(texts: list[str]) -> tuple[I64, I64, I64]:
    """The words of each text: (n_terms,) row, bucket and how often, by row and bucket."""
    words = hash_words([text.encode() for text in texts])
    rows = np.repeat(np.arange(len(texts)), np.diff(words.offsets))
    buckets = (words.hashes >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)
    keys, counts = np.unique(rows * _N_BUCKETS + buckets, return_counts=True)
    return keys // _N_BUCKETS, keys % _N_BUCKETS, counts


def _signed_idf(texts: pl.Series) -> F64:
    """The weight of each bucket, shape (_N_BUCKETS,): its inverse document frequency with its sign."""
    frequencies = np.zeros(_N_BUCKETS, dtype=np.int64)
    for _, chunk in _chunks(texts):
        frequencies += np.bincount(_terms(chunk)[1], minlength=_N_BUCKETS)
    _, signs = _hashing()
    return np.asarray(signs * (1 + np.log((1 + len(texts)) / (1 + frequencies))), dtype=np.float64)


def _chunks(texts: pl.Series) -> Iterator[tuple[int, list[str]]]:
    """Give (index of the first, texts) in parts of about _CHUNK_BYTES each, so that memory is bounded."""
    ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    start = 0
    while start < len(texts):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + _CHUNK_BYTES, side="right")), start + 1)
        yield start, texts.slice(start, stop - start).to_list()
        start = stop


@lru_cache(maxsize=1)
def _hashing() -> tuple[I64, F64]:
    """The dimension and the sign of each bucket, shape (_N_BUCKETS,)."""
    numbers = mix(np.arange(_N_BUCKETS, dtype=np.uint64))
    signs = 1.0 - 2.0 * (numbers >> np.uint64(63)).astype(np.float64)
    return (numbers % np.uint64(N_DIMENSIONS)).astype(np.int64), signs
