"""minhash: find near-duplicate texts by MinHash and banding, and prove each by its exact Jaccard.

A text is the set of its word shingles. Rows that agree in a whole band of their signatures are candidates; with b bands
of r rows a pair of Jaccard s becomes one with probability 1 - (1 - s^r)^b: for 16 x 8 that is .947 at s = .8, .999 at
.88 (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", s3.4). Permutations are datasketch's (`affine32`), so a
signature equals `datasketch.MinHash(hashfunc=<identity>)` over the shingles' low 32 bits, bit for bit.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from stages.core.section import Section
from stages.core.words import I64, U64, chunks, hash_grams, hash_words, mix

U32 = np.ndarray[Any, np.dtype[np.uint32]]

_BLOCK = 1 << 15  # shingles permuted at a time: two such blocks of uint32 stay in a core's cache


class MinHashing(Section):
    """What makes two texts near-duplicates, and how such pairs are found."""

    seed: int = Field(ge=0, lt=2**32)  # of the permutations
    shingle_words: int = Field(ge=1, le=20)  # words a shingle
    n_permutations: int = Field(ge=1, le=1024)  # rows of a signature
    n_bands: int = Field(ge=1, le=1024)  # divides n_permutations
    min_jaccard: float = Field(gt=0, le=1)  # of the shingle sets, inclusive
    short_words: int = Field(ge=1)  # a text of fewer words is short: only an equal one is its duplicate

    @model_validator(mode="after")
    def _fits(self) -> "MinHashing":
        if self.n_permutations % self.n_bands:
            raise ValueError(f"n_bands that divide n_permutations {self.n_permutations}")
        if self.short_words < self.shingle_words:
            raise ValueError(f"short_words of at least shingle_words {self.shingle_words}")
        return self


class Match(NamedTuple):
    """A row, the kept row before it that it repeats, and the exact Jaccard of the two."""

    row: int
    partner: int
    jaccard: float


class Sketch(NamedTuple):
    """What is held of each text while candidates are sought."""

    bands: U64  # (n_texts, n_bands) one number a band; texts agree in it when they agree in the band
    n_words: I64  # (n_texts,)


def sketch(texts: pl.Series, config: MinHashing) -> Sketch:
    """Sketch texts in chunks. Rows of short texts hold nothing of use."""
    bands = np.zeros((len(texts), config.n_bands), dtype=np.uint64)
    n_words = np.zeros(len(texts), dtype=np.int64)
    permutations = _permutations(config)
    for start, chunk in chunks(texts):
        words = hash_words(chunk)
        counts = np.diff(words.offsets)
        n_words[start : start + len(chunk)] = counts
        long = np.flatnonzero(counts >= config.short_words)
        if len(long):
            shingles, offsets = hash_grams(words, config.shingle_words)
            part = signatures(shingles, offsets, permutations)[long]
            bands[start + long] = band_hashes(part, config.n_bands)
    return Sketch(bands, n_words)


def signatures(shingles: U64, offsets: I64, permutations: tuple[U32, U32]) -> U32:
    """Give the MinHash signature of each text, shape (n_texts, n_permutations); all ones where it has no shingle.

    Signature k is the least of a_k * h + b_k modulo 2^32 over the text's shingles, h being datasketch's pre-mixed hash.
    """
    multipliers, addends = permutations
    n_texts = len(offsets) - 1
    result = np.full((len(multipliers), n_texts), 0xFFFFFFFF, dtype=np.uint32)
    hashes = premix(shingles.astype(np.uint32))
    filled = np.flatnonzero(np.diff(offsets))  # reduceat knows no empty segment
    start = 0
    while start < len(filled):
        first = offsets[filled[start]]
        stop = max(int(np.searchsorted(offsets[filled + 1], first + _BLOCK, side="right")), start + 1)
        block = filled[start:stop]
        part = hashes[first : offsets[block[-1] + 1]]
        cuts = offsets[block] - first
        permuted = np.empty_like(part)
        for k in range(len(multipliers)):
            np.multiply(part, multipliers[k], out=permuted)
            np.add(permuted, addends[k], out=permuted)
            result[k, block] = np.minimum.reduceat(permuted, cuts)
        start = stop
    return np.ascontiguousarray(result.T)


def premix(hashes: U32) -> U32:
    """Mix 32-bit hashes as datasketch does before it permutes them: the finalizer of MurmurHash3."""
    mixed = hashes ^ (hashes >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def band_hashes(signature: U32, n_bands: int) -> U64:
    """Number the bands of signatures, shape (n_texts, n_bands)."""
    rows = signature.reshape(len(signature), n_bands, -1)
    hashes = np.zeros(rows.shape[:2], dtype=np.uint64)
    for k in range(rows.shape[2]):
        hashes = mix(hashes ^ rows[:, :, k])
        hashes += np.uint64(k + 1)
    return hashes


def near_duplicates(texts: pl.Series, found: Sketch, config: MinHashing) -> list[Match]:
    """Walk the long texts in the order given and match each against the rows kept before it.

    A row is a duplicate only of a row that is kept: chains do not close, so a text far from all that is kept stays.
    Its partner is the most similar one, the earliest of equals.

    Args:
        texts: in keep order.
        found: their sketch.
        config: the threshold.
    """
    rows, buckets, cuts = _shared_buckets(found.bands, np.flatnonzero(found.n_words >= config.short_words))
    kept_in: dict[int, list[int]] = {}
    shingles: dict[int, U64] = {}  # of kept rows that share a bucket
    matches = []
    for i, (row, own) in enumerate(_shingle_sets(texts, rows, config.shingle_words)):
        own_buckets = buckets[cuts[i] : cuts[i + 1]].tolist()
        near = sorted({other for bucket in own_buckets for other in kept_in.get(bucket, ())})
        match = _best(row, own, near, shingles, config.min_jaccard)
        if match:
            matches.append(match)
            continue
        shingles[row] = own
        for bucket in own_buckets:
            kept_in.setdefault(bucket, []).append(row)
    return matches


def jaccard(a: U64, b: U64) -> float:
    """Give |a and b| / |a or b| of two sorted arrays without repetitions, not both empty."""
    both = np.concatenate([a, b])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def _best(row: int, own: U64, near: Sequence[int], shingles: dict[int, U64], min_jaccard: float) -> Match | None:
    best = None
    for other in near:
        theirs = shingles[other]
        small, large = sorted((len(own), len(theirs)))
        if small < min_jaccard * large:  # the Jaccard is at most small / large
            continue
        value = jaccard(own, theirs)
        if value >= min_jaccard and (best is None or value > best.jaccard):
            best = Match(row, other, value)
            if value == 1:
                break
    return best


def _shared_buckets(bands: U64, members: I64) -> tuple[I64, I64, I64]:
    """List the buckets that hold two rows or more.

    Returns:
        rows in such buckets, ascending; bucket numbers, grouped by row; where each row's buckets begin and end.
    """
    rows, buckets = [], []
    for k in range(bands.shape[1] if len(members) else 0):
        keys = bands[members, k]
        order = np.argsort(keys, kind="stable")
        begins = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])  # of buckets, along `order`
        shared = ~(begins & np.append(begins[1:], True))
        rows.append(members[order[shared]])
        buckets.append(np.cumsum(begins)[shared] + k * len(members))
    nothing = np.zeros(0, np.int64)
    all_rows, all_buckets = np.concatenate([nothing, *rows]), np.concatenate([nothing, *buckets])
    order = np.argsort(all_rows, kind="stable")
    distinct, cuts = np.unique(all_rows[order], return_index=True)
    return distinct, all_buckets[order], np.append(cuts, len(order))


def _shingle_sets(texts: pl.Series, rows: I64, n: int) -> Iterator[tuple[int, U64]]:
    """Give (row, its shingles, sorted and distinct) for the rows asked for."""
    wanted = texts.gather(rows)
    for start, chunk in chunks(wanted):
        shingles, offsets = hash_grams(hash_words(chunk), n)
        for i in range(len(chunk)):
            yield int(rows[start + i]), np.unique(shingles[offsets[i] : offsets[i + 1]])


def _permutations(config: MinHashing) -> tuple[U32, U32]:
    from datasketch import MinHash  # a second to import, with scipy

    multipliers, addends = MinHash(config.n_permutations, config.seed).permutations
    return multipliers, addends
