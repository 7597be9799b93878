"""draws: random numbers that belong to a row, whatever rows stand beside it.

A number drawn from (seed, purpose, id) does not move when rows are added, dropped or reordered, as one drawn in turn
from a generator would.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np


def uniform_by_id(ids: Iterable[str], *, seed: int, purpose: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Draw a number in [0, 1) for each id, shape (n,); different purposes draw independently.

    >>> uniform_by_id(["a", "b"], seed=0, purpose="doctest").round(3)
    array([0.304, 0.969])
    """
    key = blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    digests = b"".join(blake2b(item.encode(), digest_size=8, key=key).digest() for item in ids)
    numbers = np.frombuffer(digests, dtype="<u8") >> np.uint64(11)
    return numbers.astype(np.float64) * 2.0**-53


def stream(*, seed: int, purpose: str) -> np.random.Generator:
    """Open a generator of its own for one purpose, independent of those for others."""
    digest = blake2b(purpose.encode(), digest_size=16).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])
