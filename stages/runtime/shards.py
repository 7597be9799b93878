"""Finished parts of a stage's work, kept across runs: under .cache/, by the content of all that they follow from.

A shard is a folder of files. It is made beside its place and renamed into it, so it is there whole or not; a manifest
with the checksum of each file tells one that was altered since.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.common.files import CACHE, first_line, writing

_MANIFEST = "manifest.json"
_WORK = ".work"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_version(module: str) -> str:
    """Return a digest of a module, of all of ours that it imports, now or later, directly or not, and of Python.

    It does not depend on what this process has loaded, so one process and several agree on it.
    """
    import grimp  # slow to import, and most who keep shards need no version of code

    graph = grimp.build_graph("stages", exclude_type_checking_imports=True, cache_dir=None)
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for name in sorted({module, *graph.find_upstream_modules(module)}):
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None, f"{name} is a module of the graph"
        digest.update(name.encode() + b"\0" + Path(found.origin).read_bytes())
    return digest.hexdigest()


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the key of a shard that follows from these plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Make an empty folder that is gone afterwards; what a killed run has left there goes first.

    Raises:
        InputError: it cannot be made.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made, {first_line(error)}; free space or mend rights") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Shards:
    """The shards of one stage and source."""

    def __init__(self, stage: str, source: str) -> None:
        self.folder = CACHE / stage / source

    def find(self, key: str) -> dict[str, Any] | None:
        """Return what was noted with a shard, or None if there is none that is whole; one that is not is removed."""
        folder = self.folder / key
        if not folder.is_dir():
            return None
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            if manifest["files"] == {path.name: file_digest(path) for path in self.files(key)}:
                note: dict[str, Any] = manifest["note"]
                return note
            why = "its files are not those that were written"
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = first_line(error)
        print(f"WARNING: {folder}: a kept shard is damaged ({why}); it is made anew", file=sys.stderr)
        shutil.rmtree(folder)
        return None

    def files(self, key: str) -> list[Path]:
        """Return the files of a shard, sorted."""
        return sorted(path for path in (self.folder / key).iterdir() if path.name != _MANIFEST)

    @contextmanager
    def make(self, key: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Give an empty folder to fill and a note to write; at the end both are the shard, on an error nothing is."""
        folder = self.folder / f".{key}"
        shutil.rmtree(folder, ignore_errors=True)
        note: dict[str, Any] = {}
        try:
            with writing(folder):
                folder.mkdir(parents=True)
            yield folder, note
            files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
            with writing(folder):
                (folder / _MANIFEST).write_text(json.dumps({"files": files, "note": note}), encoding="utf-8")
                folder.rename(self.folder / key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def work(self) -> AbstractContextManager[Path]:
        """Give an empty folder that is gone afterwards."""
        return work_folder(self.folder / _WORK)

    def keep_only(self, keys: Collection[str]) -> None:
        """Remove all other shards, and what killed runs have left."""
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if folder.name not in (*keys, _WORK):
                shutil.rmtree(folder, ignore_errors=True)
