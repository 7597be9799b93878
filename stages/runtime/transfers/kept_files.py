"""What was downloaded, under .cache/downloads/: outside every DVC out, so nothing is downloaded twice.

    sha256/<first two digits>/<digits>     whole files by their checksum, read-only
    seen/<hash of address>.json            which of them an address gave, and of which version
    partial/<hash of address>[.json]       the beginning of a file, and of which version it is

A file that is given out is a clone of the kept one where the file system can (btrfs, xfs), else a hard link, else a
copy. DVC makes what it tracks read-only, shares it by links in turn and removes it by name: none of that changes the
bytes behind a link. What else might (a hand that edits a file in place) is found, as every kept file is hashed again
before it is given out, about a second a gigabyte.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stages.common.errors import InputError
from stages.core.transfer import Have

if sys.platform != "win32":
    import fcntl

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_BLOCK_BYTES = 2**20


class Seen(NamedTuple):
    """What an address gave when it was last downloaded."""

    sha256: str
    n_bytes: int
    validator: str


class Partial:
    """The beginning of a file, locked: one download of it at a time."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.about = path.with_name(f"{path.name}.json")
        self.n_bytes = file.seek(0, os.SEEK_END)
        self.validator = self._read_validator()

    @property
    def have(self) -> Have:
        """What a request can go on from."""
        return Have(self.n_bytes, self.validator)

    def begin(self, offset: int, validator: str) -> None:
        """Cut at `offset`, to write on from there."""
        self.file.truncate(offset)
        self.n_bytes = self.file.seek(offset)
        if validator != self.validator or not offset:
            partial = self.about.with_name(f".{self.about.name}.partial")
            partial.write_text(json.dumps({"validator": validator}))
            partial.replace(self.about)
        self.validator = validator

    def write(self, piece: bytes) -> None:
        """Append; a kill behind this loses nothing of it."""
        self.file.write(piece)
        self.n_bytes += len(piece)

    def ends(self) -> tuple[bytes, bytes]:
        """The first and the last kilobyte."""
        self.file.seek(0)
        head = self.file.read(1024)
        self.file.seek(max(0, self.n_bytes - 1024))
        return head, self.file.read(1024)

    def _read_validator(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(self.about.read_text())
            if isinstance(value, dict) and isinstance(value.get("validator"), str):
                return str(value["validator"])
        return ""


class KeptFiles:
    """The folder .cache/downloads."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where a whole file lies, if it is kept."""
        return self.root / "sha256" / sha256[:2] / sha256

    def sound(self, sha256: str) -> bool:
        """Whether a file is kept, and still has its checksum; a damaged one is removed, and that said."""
        path = self.path(sha256)
        if not path.is_file():
            return False
        if checksums(path)["sha256"] == sha256:
            return True
        path.unlink()
        print(f"{path}: damaged since it was kept; removed, it is fetched again", file=sys.stderr)
        return False

    def seen(self, address: str) -> Seen | None:
        """What an address gave before."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            fields = json.loads(self._seen(address).read_text())
            return Seen(str(fields["sha256"]), int(fields["n_bytes"]), str(fields["validator"]))
        return None

    @contextmanager
    def partial(self, address: str) -> Iterator[Partial]:
        """Open the beginning of a file, empty if there is none.

        Raises:
            InputError: another process downloads it.
        """
        path = self.root / "partial" / _key(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise InputError(
                        f"{address}: another run is downloading it; wait for that, then run again"
                    ) from None
            yield Partial(file, path)

    def keep(self, partial: Partial, sha256: str, *, address: str) -> None:
        """Make a whole file of a partial one, and remember the address."""
        os.fsync(partial.file.fileno())
        target = self.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.path.chmod(0o444)
        partial.path.replace(target)
        partial.about.unlink(missing_ok=True)
        seen = self._seen(address)
        seen.parent.mkdir(parents=True, exist_ok=True)
        fields = {"address": address, **Seen(sha256, partial.n_bytes, partial.validator)._asdict()}
        written = seen.with_name(f".{seen.name}.{os.getpid()}.partial")
        written.write_text(json.dumps(fields))
        written.replace(seen)

    def give(self, sha256: str, target: Path) -> None:
        """Put a kept file at `target`, which does not exist yet: cloned, linked or copied."""
        share(self.path(sha256), target, may_link=True)

    def _seen(self, address: str) -> Path:
        return self.root / "seen" / f"{_key(address)}.json"


def checksums(path: Path, algorithms: tuple[str, ...] = ()) -> dict[str, str]:
    """The sha256 of a file, and other checksums, in one pass."""
    hashes = {
        name: hashlib.new("sha1" if name == "git_blob" else name, usedforsecurity=False)
        for name in ("sha256", *algorithms)
    }
    if "git_blob" in hashes:
        hashes["git_blob"].update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            for state in hashes.values():
                state.update(block)
    return {name: state.hexdigest() for name, state in hashes.items()}


def share(source: Path, target: Path, *, may_link: bool) -> None:
    """Put a file at `target`, which does not exist yet: cloned, linked where the two may be one file, or copied."""
    if _cloned(source, target):
        return
    try:
        if may_link:
            os.link(source, target)
            return
    except OSError:
        pass  # another file system, or one without links
    shutil.copyfile(source, target)


def _key(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:32]


def _cloned(source: Path, target: Path) -> bool:
    """Whether the file system made `target` share the blocks of `source`, to be parted when one is written."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        with source.open("rb") as old, target.open("xb") as new:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True
