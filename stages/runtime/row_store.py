"""Bytes of a table, to be read again by their place: a file as it lies there, or a compressed copy of a stream."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from backports import zstd

from stages.common.files import writing

_LEVEL = 1  # some 300 MB/s, a third of the size
_CACHED_BLOCKS = 32  # of half a MiB each


class RowStore(Protocol):
    """What rows are read from."""

    def read(self, start: int, n_bytes: int) -> bytes:
        """Return the bytes at a place."""

    def close(self) -> None:
        """Give the file back."""


class Spool:
    """Writes blocks of a stream one after another, each compressed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = folder / name
        self._starts, self._offsets = [0], [0]

    def add(self, block: bytes) -> int:
        """Add a block; gives the place of its first byte in the stream."""
        place = self._starts[-1]
        packed, path = zstd.compress(block, _LEVEL), self.name.with_suffix(".zst")
        with writing(path), path.open("ab") as file:  # open no longer than this: a later fault leaves nothing
            file.write(packed)
        self._starts.append(place + len(block))
        self._offsets.append(self._offsets[-1] + len(packed))
        return place

    def close(self) -> None:
        """Write the places of the blocks."""
        path = self.name.with_suffix(".blocks")
        with writing(path):
            np.array([self._starts, self._offsets], np.int64).tofile(path)


def remember(folder: Path, name: str, path: Path) -> None:
    """Let a table be read from a file that is not compressed."""
    pointer = (folder / name).with_suffix(".path")
    with writing(pointer):
        pointer.write_text(json.dumps(str(path.absolute())), encoding="utf-8")


def open_store(folder: Path, name: str) -> RowStore | None:
    """Open what `Spool` or `remember` has left under a name, if there is any."""
    path = folder / name
    if path.with_suffix(".path").is_file():
        return _Plain(Path(json.loads(path.with_suffix(".path").read_text(encoding="utf-8"))))
    return _Spooled(path) if path.with_suffix(".blocks").is_file() else None


class _Plain:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)

    def read(self, start: int, n_bytes: int) -> bytes:
        return os.pread(self._file, n_bytes, start)

    def close(self) -> None:
        os.close(self._file)


class _Spooled:
    """A row lies in one block, since blocks are whole lines."""

    def __init__(self, name: Path) -> None:
        self._file = os.open(name.with_suffix(".zst"), os.O_RDONLY)
        self._starts, self._offsets = np.fromfile(name.with_suffix(".blocks"), np.int64).reshape(2, -1)
        self._block = lru_cache(maxsize=_CACHED_BLOCKS)(self._unpacked)

    def read(self, start: int, n_bytes: int) -> bytes:
        i = int(np.searchsorted(self._starts, start, side="right")) - 1
        first = start - int(self._starts[i])
        return self._block(i)[first : first + n_bytes]

    def close(self) -> None:
        self._block.cache_clear()
        os.close(self._file)

    def _unpacked(self, i: int) -> bytes:
        first, last = int(self._offsets[i]), int(self._offsets[i + 1])
        return zstd.decompress(os.pread(self._file, last - first, first))
