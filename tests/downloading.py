"""A project with one source that is pulled from an address, for the tests of that."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

from stages import pull
from tests.workspace import ROOT

PULL = {
    "max_file_bytes": 10**8,
    "max_total_bytes": 10**9,
    "concurrency": 3,
    "timeout_s": 5.0,
    "max_attempts": 4,
}


def archive(n_bytes: int, seed: int = 0) -> bytes:
    """Bytes that look like a whole 7z archive, as its header counts them; the rest is random."""
    header = (
        b"7z\xbc\xaf\x27\x1c\0\4" + bytes(4) + (n_bytes - 32 - 20).to_bytes(8, "little") + (20).to_bytes(8, "little")
    )
    return header + bytes(4) + random.Random(seed).randbytes(n_bytes - 32)


def write_params(
    origin: str, format_: str = "stack_exchange", only: list[str] | None = None, **changed: object
) -> None:
    source = {"format": format_, "origin": origin, **({"only": only} if only else {})}
    params = {"sources": {"mine": source}, "pull": {**PULL, **changed}, "miniature": {"seed": 0, "n_people": 200}}
    Path("params.yaml").write_text(json.dumps(params))


def make_project(root: Path) -> None:
    """The catalogs, in a folder that is the working directory by then."""
    shutil.copytree(ROOT / "data/catalog/files", root / "data/catalog/files")


def pulled() -> dict[str, bytes]:
    """What lies in data/pull/mine, by name."""
    folder = Path("data/pull/mine")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def pins() -> str:
    return Path("data/pins/mine.csv").read_text()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pull_mine() -> dict[str, bytes]:
    pull.main("mine")
    return pulled()
