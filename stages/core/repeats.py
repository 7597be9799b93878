"""repeats: walk texts in keep order and drop what repeats a kept one, by exact Jaccard.

A row is a duplicate only of a row that is kept: chains do not close, so a text far from all that is kept stays. Its
partner is the most similar one, the earliest of equals.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from stages.core.crowds import gather
from stages.core.kernels import Kernels
from stages.core.minhash import Buckets, MinHashing, least_agreement
from stages.core.words import I64, U8, U64

_FEW = 3  # rows that are compared at once; of more, their sketches are compared before


class Match(NamedTuple):
    """A row, the kept row before it that it repeats, and the exact Jaccard of the two."""

    row: int
    partner: int
    jaccard: float


def near_duplicates(
    order: I64, buckets: Buckets, sketch: U8, shingles: Callable[[int], U64], config: MinHashing, kernels: Kernels
) -> list[Match]:
    """Match each row in a bucket against the kept rows before it.

    Args:
        order: (n,) places in `buckets.rows`, in keep order.
        buckets: who may be like whom.
        sketch: (n_texts, n_permutations) of all texts.
        shingles: gives the shingles, sorted and distinct, of the row at a place of `buckets.rows`.
        config: the threshold.
        kernels: what compares.

    Returns:
        matches of rows, in keep order.
    """
    least = least_agreement(config)
    crowd = gather(order, buckets, shingles, config.min_jaccard)
    kept_in: dict[int, list[int]] = {}  # places of kept rows, by bucket, in keep order; of over-full ones none
    is_kept = np.zeros(len(buckets.rows), dtype=np.bool_)
    rank = np.empty(len(buckets.rows), dtype=np.int64)
    rank[order] = np.arange(len(order))
    matches = []
    for place in order.tolist():
        own_buckets = buckets.of(place)
        others = {other for bucket in own_buckets for other in kept_in.get(bucket, ())}
        if crowd and (crowded := crowd.buckets.intersection(own_buckets)):
            likely = crowd.likely(place, config.min_jaccard)
            others |= {other for other in likely[is_kept[likely]].tolist() if crowded.intersection(buckets.of(other))}
        near = sorted(others, key=rank.__getitem__)
        if len(near) > _FEW:
            places = np.array(near)
            n_agree = np.count_nonzero(sketch[buckets.rows[places]] == sketch[buckets.rows[place]], axis=1)
            near = places[n_agree >= least].tolist()
        found = _best(place, near, shingles, config.min_jaccard, kernels) if near else None
        if found:
            matches.append(Match(int(buckets.rows[place]), int(buckets.rows[found[0]]), found[1]))
        else:
            is_kept[place] = True
            for bucket in own_buckets:
                if not crowd or bucket not in crowd.buckets:
                    kept_in.setdefault(bucket, []).append(place)
    return matches


def _best(
    place: int, others: Sequence[int], shingles: Callable[[int], U64], min_jaccard: float, kernels: Kernels
) -> tuple[int, float] | None:
    own = shingles(place)
    best: tuple[int, float] | None = None
    for other in others:
        theirs = shingles(other)
        small, large = sorted((len(own), len(theirs)))
        if small < min_jaccard * large:  # the Jaccard is at most small / large
            continue
        value = kernels.jaccard(own, theirs)
        if value >= min_jaccard and (best is None or value > best[1]):
            best = other, value
            if value == 1:
                break
    return best
