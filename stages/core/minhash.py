"""minhash: sketch texts by MinHash, and band the sketches to find those that may be near-duplicates.

A text is the set of its word shingles. Permutations are datasketch's (`affine32`), so a signature equals
`datasketch.MinHash(hashfunc=<identity>)` over the shingles' low 32 bits, bit for bit. Of each of its numbers one byte
is kept (b-bit minwise hashing: Li and Koenig 2010): two texts of Jaccard s agree in a byte with probability
s + (1 - s) / 256, and a text costs `n_permutations` bytes. Texts that agree in a whole band of r bytes are candidates;
with b bands that is 1 - (1 - s^r)^b: for 25 x 5 .99995 at s = .8, .06 at .3 (Leskovec, Rajaraman, Ullman, "Mining of
Massive Datasets", s3.4). Of candidates those are compared exactly that agree in enough bytes.
"""

from collections.abc import Callable, Iterable
from math import comb
from typing import NamedTuple

import numpy as np
from pydantic import Field, model_validator

from stages.common.section import Section
from stages.core.words import I64, U8, U32, U64, mix

_BLOCK = 1 << 15  # shingles permuted, or pairs compared, at a time: two blocks of uint32 stay in a core's cache
_MISSED = 1e-6  # share of pairs at min_jaccard that `least_agreement` may lose


class MinHashing(Section):
    """What makes two texts near-duplicates, and how such pairs are found."""

    seed: int = Field(ge=0, lt=2**32)  # of the permutations
    shingle_words: int = Field(ge=1, le=20)  # words a shingle
    n_permutations: int = Field(ge=1, le=1024)  # bytes of a sketch
    n_bands: int = Field(ge=1, le=1024)  # of n_permutations // n_bands bytes each, those that are left over unused
    min_jaccard: float = Field(gt=0, le=1)  # of the shingle sets, inclusive
    short_words: int = Field(ge=1)  # a text of fewer words is short: only an equal one is its duplicate

    @model_validator(mode="after")
    def _fits(self) -> "MinHashing":
        if self.n_bands > self.n_permutations:
            raise ValueError(f"n_bands of at most n_permutations {self.n_permutations}")
        if self.short_words < self.shingle_words:
            raise ValueError(f"short_words of at least shingle_words {self.shingle_words}")
        return self


class Buckets(NamedTuple):
    """Groups of two rows or more that agree in a band, each group once however many bands it agrees in."""

    rows: I64  # rows in such groups, distinct, ascending
    numbers: I64  # of the groups, grouped by row
    cuts: I64  # (n_rows + 1,) row i is in the groups numbers[cuts[i]:cuts[i + 1]]

    def of(self, place: int) -> list[int]:
        """The groups of the row at a place of `rows`."""
        groups: list[int] = self.numbers[self.cuts[place] : self.cuts[place + 1]].tolist()
        return groups


def permutations(n: int, seed: int) -> tuple[U32, U32]:
    """The odd multipliers and the addends of n permutations of 32 bits, as `datasketch.MinHash(n, seed)` draws them."""
    generator = np.random.RandomState(seed)
    multipliers = generator.randint(0, 1 << 31, n, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return multipliers, generator.randint(0, 1 << 32, n, dtype=np.uint32)


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


def sketches(signature: U32) -> U8:
    """Keep a byte of each number of a signature, one that all its bits have a say in."""
    return (signature * np.uint32(0x9E3779B1) >> np.uint32(24)).astype(np.uint8)


def least_agreement(config: MinHashing) -> int:
    """The bytes in which two sketches must agree to be compared exactly.

    All but `_MISSED` of the pairs at min_jaccard do: the tail of a binomial distribution.
    """
    n, p = config.n_permutations, config.min_jaccard
    missed = 0.0
    for k in range(n + 1):
        missed += comb(n, k) * p**k * (1 - p) ** (n - k)
        if missed > _MISSED:
            return k
    return n


def shared_buckets(
    sketch: U8,
    members: I64,
    n_bands: int,
    *,
    least: int,
    each: Callable[[Callable[[int], I64], Iterable[int]], Iterable[I64]] = map,
) -> Buckets:
    """Group the members that agree in a band.

    Args:
        sketch: (n_texts, n_permutations) of all texts.
        members: the rows to be grouped, ascending.
        n_bands: bands a sketch.
        least: bytes in which two rows that are a group must agree; a larger group is not looked into.
        each: calls a function for each band, perhaps several at a time, and gives the results in order.
    """
    n_rows = sketch.shape[1] // n_bands

    def grouped(band: int) -> I64:
        return _grouped(_band_keys(sketch[members, band * n_rows : (band + 1) * n_rows]))

    nothing = np.zeros(0, np.int64)
    found = np.concatenate([nothing, *each(grouped, range(n_bands if len(members) > 1 else 0))])
    rows = members[found >> 1]
    starts = np.flatnonzero(found & 1)
    sizes = np.diff(starts, append=len(found))
    # the same rows grouped again by another band add nothing: a group is known by the sum of its rows' numbers, mixed
    marks = np.add.reduceat(mix(rows.astype(np.uint64) + np.uint64(1)), starts) if len(starts) else nothing
    is_new = np.zeros(len(starts), dtype=np.bool_)
    is_new[np.unique(marks, return_index=True)[1]] = True
    pairs = np.flatnonzero(is_new & (sizes == 2))
    is_new[pairs] = _agreement(sketch, rows[starts[pairs]], rows[starts[pairs] + 1]) >= least
    numbers = np.repeat(np.arange(len(starts)), sizes)
    kept = is_new[numbers]
    rows, numbers = rows[kept], numbers[kept]
    order = np.argsort(rows, kind="stable")
    distinct, cuts = np.unique(rows[order], return_index=True)
    return Buckets(distinct, numbers[order], np.append(cuts, len(order)))


def _grouped(keys: U64) -> I64:
    """List the places of equal keys, group by group, where there are two or more.

    Returns:
        (n,) twice the place, plus one where a group begins.
    """
    low = np.uint64((1 << len(keys).bit_length()) - 1)
    keys = (keys & ~low) | np.arange(len(keys), dtype=np.uint64)  # a place in the low bits: one sort does it all
    keys.sort()
    is_as_before = np.concatenate([[False], (keys[1:] & ~low) == (keys[:-1] & ~low)])
    is_grouped = is_as_before | np.append(is_as_before[1:], False)
    places: I64 = (keys & low)[is_grouped].astype(np.int64)
    places *= 2
    places += ~is_as_before[is_grouped]
    return places


def _agreement(sketch: U8, a: I64, b: I64) -> I64:
    """In how many bytes the sketches of pairs of rows agree, shape (n_pairs,)."""
    parts = [
        np.count_nonzero(sketch[a[i : i + _BLOCK]] == sketch[b[i : i + _BLOCK]], axis=1)
        for i in range(0, len(a), _BLOCK)
    ]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _band_keys(band: U8) -> U64:
    """Number the bands, shape (n_texts,): texts of one number agree, but for a chance of about 2^-40."""
    keys = np.zeros(len(band), dtype=np.uint64)
    for first in range(0, band.shape[1], 8):
        part = np.zeros((len(band), 8), dtype=np.uint8)
        part[:, : band.shape[1] - first] = band[:, first : first + 8]
        keys = mix(keys + np.uint64(first + 1) ^ part.view("<u8")[:, 0])
    return keys


def jaccard(a: U64, b: U64) -> float:
    """Give |a and b| / |a or b| of two sorted arrays without repetitions, not both empty."""
    both = np.concatenate([a, b])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)
