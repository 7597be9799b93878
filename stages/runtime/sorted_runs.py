"""Rows of integers, more than fit in memory: written as sorted runs, read by their first column, the key.

A run is two files: the keys alone, to be searched, and whole rows. A key may have any number of rows, in any run.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from stages.common.files import writing
from stages.core.xml_rows import Ints

_BYTES_A_ROW = 6 * 8 * 4  # of memory: six columns, the batches as they come, joined, their order, and sorted


class RunWriter:
    """Collects rows; whenever `memory_bytes` are full, sorts them by all columns and writes a run."""

    def __init__(self, folder: Path, name: str, *, n_columns: int, memory_bytes: int) -> None:
        self.folder, self.name, self.n_columns = folder, name, n_columns
        self.max_rows = max(1000, memory_bytes // _BYTES_A_ROW)
        self._batches: list[Ints] = []
        self._n_rows = self._n_runs = 0

    def add(self, rows: Ints) -> None:
        """Add rows, (n, n_columns)."""
        self._batches.append(rows)
        self._n_rows += len(rows)
        if self._n_rows >= self.max_rows:
            self.close()

    def close(self) -> None:
        """Write what has not been written."""
        if not self._n_rows:
            return
        rows = np.concatenate(self._batches)
        rows = rows[np.lexsort(rows.T[::-1])]
        path = self.folder / f"{self.name}-{self._n_runs:06d}"
        with writing(path):
            np.ascontiguousarray(rows[:, 0]).tofile(path.with_suffix(".keys"))
            rows.tofile(path.with_suffix(".rows"))
        self._batches, self._n_rows, self._n_runs = [], 0, self._n_runs + 1


class Runs:
    """The runs whose names begin with `name`, read together."""

    def __init__(self, folder: Path, name: str, *, n_columns: int) -> None:
        self.n_columns = n_columns
        self.paths = sorted(folder.glob(f"{name}-*.rows"))
        self.keys = [np.memmap(path.with_suffix(".keys"), np.int64, mode="r") for path in self.paths]
        self.n_rows = sum(map(len, self.keys))

    def bounds(self, max_rows: int) -> list[tuple[int, int]]:
        """Cut the keys into ranges [low, high) of about `max_rows` rows or less, in order; a key is in one of them."""
        if not self.n_rows:
            return []
        step = max(1, min(max_rows // (4 * len(self.keys)), 10_000))
        sampled = np.sort(np.concatenate([keys[step - 1 :: step] for keys in self.keys]))
        cuts = np.unique(sampled[max(1, max_rows // step) :: max(1, max_rows // step)]).tolist()
        low, high = min(int(keys[0]) for keys in self.keys), max(int(keys[-1]) for keys in self.keys)
        edges = [low, *(cut for cut in cuts if cut > low), high + 1]
        return list(pairwise(edges))

    def between(self, low: int, high: int) -> Ints:
        """Return the rows with low <= key < high, sorted by all columns, (n, n_columns)."""
        places = (np.searchsorted(keys, (low, high)) for keys in self.keys)
        return self._sorted([self._read(path, int(a), int(b)) for path, (a, b) in zip(self.paths, places, strict=True)])

    def of(self, keys: Ints) -> Ints:
        """Return the rows with one of the keys, which are distinct and ascending, sorted by all columns."""
        found = [np.empty((0, self.n_columns), np.int64)]
        for path, there in zip(self.paths, self.keys, strict=True):
            first, last = np.searchsorted(there, keys), np.searchsorted(there, keys, side="right")
            rows = np.memmap(path, np.int64, mode="r").reshape(-1, self.n_columns)
            n = last - first
            at = np.repeat(first - np.concatenate(([0], np.cumsum(n)[:-1])), n) + np.arange(n.sum())
            found.append(np.asarray(rows[at]))
        return self._sorted(found)

    def _read(self, path: Path, first: int, last: int) -> Ints:
        width = self.n_columns * 8
        return np.fromfile(path, np.int64, (last - first) * self.n_columns, offset=first * width).reshape(
            -1, self.n_columns
        )

    def _sorted(self, parts: list[Ints]) -> Ints:
        rows = np.concatenate(parts) if parts else np.empty((0, self.n_columns), np.int64)
        return rows if len(parts) == 1 else rows[np.lexsort(rows.T[::-1])]
