"""quotas: how many rows of each domain make up a quota.

LIMA s2.1 draws Stack Exchange's exchanges "with a temperature of tau = 3 to get a more uniform sample of the different
domains", and wikiHow's categories uniformly. *Our reading*: p_i proportional to n_i^(1/tau); uniform is tau = infinity.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Counts = np.ndarray[Any, np.dtype[np.int64]]


def domain_probabilities(sizes: Sequence[int], *, temperature: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Give p_i proportional to n_i^(1/temperature), shape (n_domains,); an empty domain has none.

    >>> domain_probabilities([8, 1], temperature=3.0).round(4)
    array([0.6667, 0.3333])
    """
    n = np.asarray(sizes, dtype=np.float64)
    weights = np.where(n > 0, np.maximum(n, 1) ** (1 / temperature), 0.0)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def draw_counts(
    sizes: Sequence[int], n: int, *, temperature: float, rng: np.random.Generator, each_first: bool = False
) -> Counts:
    """Draw n rows' domains without replacement of rows: a domain that runs out leaves the draw.

    Args:
        sizes: rows of each domain.
        n: rows to draw, at most the sum of sizes.
        temperature: 1 draws domains by their size, infinity all alike.
        rng: the generator.
        each_first: take one row of every domain before the draw; where n is less than the domains, of n of them.

    Returns:
        rows of each domain, shape (n_domains,), with sum n.
    """
    capacity = np.asarray(sizes, dtype=np.int64)
    assert 0 <= n <= capacity.sum(), "the caller has checked that the pool is large enough"
    counts = np.zeros_like(capacity)
    if each_first and n:
        p = domain_probabilities(sizes, temperature=temperature)
        first = rng.choice(len(p), size=min(n, int((capacity > 0).sum())), replace=False, p=p)
        counts[first] = 1
    while (left := n - int(counts.sum())) > 0:
        open_sizes = np.where(counts < capacity, capacity, 0)  # p stays that of the whole domain until it is empty
        p = domain_probabilities(open_sizes.tolist(), temperature=temperature)
        counts = np.minimum(counts + np.bincount(rng.choice(len(p), size=left, p=p), minlength=len(p)), capacity)
    return counts


def largest_remainder(weights: Sequence[int], n: int, *, capacity: Sequence[int]) -> list[int]:
    """Split n in proportion to weights, by largest remainder; what exceeds a capacity goes to the others.

    Where all capacities together are below n, each is filled. Ties go to the earlier.

    >>> largest_remainder([200, 50], 10, capacity=[9, 9]), largest_remainder([200, 50], 10, capacity=[3, 9])
    ([8, 2], [3, 7])
    """
    parts = [0] * len(weights)
    while (left := min(n, sum(capacity)) - sum(parts)) > 0:
        able = [i for i, part in enumerate(parts) if part < capacity[i]]
        total = sum(weights[i] for i in able)
        shares = {i: divmod(left * weights[i], total) for i in able}
        spare = left - sum(whole for whole, _ in shares.values())
        ranked = sorted(able, key=lambda i: (-shares[i][1], i))
        for place, i in enumerate(ranked):
            parts[i] = min(capacity[i], parts[i] + shares[i][0] + (place < spare))
    return parts


def entropy_bits(counts: Sequence[int]) -> float:
    """Shannon entropy of a distribution given by counts, not all 0: log2 of how many equal domains it is worth."""
    p = np.asarray([count for count in counts if count], dtype=np.float64)
    p /= p.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0
