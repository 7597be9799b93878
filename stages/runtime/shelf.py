"""A shelf: many small arrays, put away in a file in order and taken out one at a time."""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from stages.core.words import U64


class Shelf:
    """Arrays of 64-bit numbers in a file that is the caller's: a temporary one, or memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ends = [0]  # in numbers

    def put(self, arrays: Sequence[U64]) -> None:
        """Put arrays behind those that are there."""
        if arrays:
            self._file.write(np.concatenate(arrays).tobytes())
            self._ends += (self._ends[-1] + np.cumsum([len(array) for array in arrays])).tolist()

    def get(self, i: int) -> U64:
        """The array that was put i-th."""
        first, after = self._ends[i], self._ends[i + 1]
        self._file.seek(first * 8)
        return np.frombuffer(self._file.read((after - first) * 8), dtype=np.uint64)
