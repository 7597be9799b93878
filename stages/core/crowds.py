"""crowds: who of an over-full bucket may repeat whom, without comparing each with each.

Texts of one template share most of their shingles, and so a band with most of the others, and may all the same stay
below min_jaccard, all of them: n texts would be n^2 / 2 comparisons. Their rare shingles tell them apart. With t for
min_jaccard and all shingles in one order, the rarest first, the *head* of a text of n shingles are its first
n - ceil(t n) + 1, and its *rest* the others. Two texts of Jaccard t or above share at least t / (1 + t) of the sum of
their sizes, and t of the larger one's; what is not in both heads is in the rest of the one or in the rest of the
other, whichever head ends earlier in the order, so

    shared <= shared by their heads + the larger rest    and    shared by their heads > 0

(prefix filtering: Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search"; Xiao, Wang, Lin and Yu 2008,
"Efficient similarity joins for near duplicate detection"). Only pairs for which both can be are likely; none at t or
above is lost, whatever the order is.
"""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np

from stages.core.minhash import Buckets
from stages.core.words import I64, U64

CROWDED = 32  # rows in a bucket; up to there each is compared with each
_COUNTER_BITS = 20  # of a shingle's number: how often those occur counts for how rare it is


class Crowd(NamedTuple):
    """The rows of over-full buckets, in keep order; what is said of a row's head stands at cuts[i]:cuts[i + 1]."""

    buckets: frozenset[int]  # the over-full ones
    places: I64  # (n,) of the rows, in keep order
    numbers: dict[int, int]  # the row at a place
    sizes: I64  # (n,) shingles
    rests: I64  # (n,) shingles that are not of the head
    cuts: I64  # (n + 1,)
    first: I64  # where the rows with that shingle in their heads begin in `holders`
    own: I64  # where the row itself is among them: those before come earlier in keep order
    holders: I64  # rows by shingle, in keep order

    def likely(self, place: int, min_jaccard: float) -> I64:
        """The places of the rows before one that may have min_jaccard or more with it."""
        number = self.numbers[place]
        head = slice(self.cuts[number], self.cuts[number + 1])
        n_before = self.own[head] - self.first[head]
        runs = np.repeat(self.first[head] - np.cumsum(n_before) + n_before, n_before)
        n_shared = np.bincount(self.holders[runs + np.arange(len(runs))])
        others = np.flatnonzero(n_shared)
        most = n_shared[others] + np.maximum(self.rests[others], self.rests[number])
        needed = min_jaccard / (1 + min_jaccard) * (self.sizes[others] + self.sizes[number])
        return self.places[others[most >= needed - 1e-6]]


def gather(order: I64, buckets: Buckets, shingles: Callable[[int], U64], min_jaccard: float) -> Crowd | None:
    """Look at the heads of all rows in over-full buckets; None where no bucket is.

    Args:
        order: (n,) places in `buckets.rows`, in keep order.
        buckets: who may be like whom.
        shingles: gives the shingles, sorted and distinct, of the row at a place of `buckets.rows`.
        min_jaccard: the threshold.
    """
    is_full = np.bincount(buckets.numbers) > CROWDED
    if not is_full.any():
        return None
    in_full = np.add.reduceat(is_full[buckets.numbers], buckets.cuts[:-1], dtype=np.int64) > 0
    places = order[in_full[order]]
    shift = np.uint64(64 - _COUNTER_BITS)
    n_rows_with = np.zeros(1 << _COUNTER_BITS, dtype=np.uint32)
    for place in places.tolist():
        n_rows_with[shingles(place) >> shift] += 1
    sizes, heads = np.empty(len(places), dtype=np.int64), []
    for number, place in enumerate(places.tolist()):
        held = shingles(place)
        sizes[number] = len(held)
        rarest_first = np.argsort(n_rows_with[held >> shift], kind="stable")
        heads.append(held[rarest_first[: len(held) - ceil(min_jaccard * len(held) - 1e-9) + 1]])
    lengths = np.array([len(head) for head in heads], dtype=np.int64)
    by_shingle = np.argsort(np.concatenate(heads), kind="stable")
    sorted_shingles = np.concatenate(heads)[by_shingle]
    begins = np.flatnonzero(np.concatenate([[True], sorted_shingles[1:] != sorted_shingles[:-1]]))
    own, first = np.empty_like(by_shingle), np.empty_like(by_shingle)
    own[by_shingle] = np.arange(len(by_shingle))
    first[by_shingle] = np.repeat(begins, np.diff(begins, append=len(by_shingle)))
    return Crowd(
        frozenset(np.flatnonzero(is_full).tolist()),
        places,
        {place: number for number, place in enumerate(places.tolist())},
        sizes,
        sizes - lengths,
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        first,
        own,
        np.repeat(np.arange(len(places)), lengths)[by_shingle],
    )
