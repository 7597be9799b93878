"""Members of a 7z archive, streamed to whoever reads them: nothing is unpacked to disk, nothing leads outside."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Protocol

import py7zr
from py7zr.io import Py7zIO, WriterFactory

from stages.common.errors import InputError, LimaError
from stages.common.files import first_line

_LZMA, _LZMA2, _PPMD = b"\x03\x01\x01", b"\x21", b"\x03\x04\x01"
_MAX_WINDOW_BYTES = 256 * 2**20  # 7-Zip's own settings go up to this


class Taker(Protocol):
    """Takes a member's bytes as they come."""

    def feed(self, data: bytes) -> None:
        """Take some bytes."""

    def close(self) -> None:
        """There are no more."""


def stream_members(
    path: Path, names: Collection[str], taker: Callable[[str], Taker], *, max_expansion: int, passing: type[Exception]
) -> None:
    """Stream the members of these names, in the archive's order.

    Args:
        path: the archive.
        names: file names of members, in whatever folder.
        taker: gives what takes a member, by file name.
        max_expansion: times that the content may be larger than the archive.
        passing: errors of takers that are no fault of the archive and come through as they are; so do ours.

    Raises:
        InputError: the archive is damaged, a name leads outside or is there twice, or the content is out of proportion.
    """
    factory = _Sinks(taker)
    try:
        # given an open file, py7zr reads folder by folder in this thread; given a path it starts one thread each
        with path.open("rb") as file, py7zr.SevenZipFile(file) as archive:
            wanted = _wanted(path, archive, names, max_expansion)
            archive.extract(targets=wanted, factory=factory)
    except (LimaError, passing):
        raise
    except Exception as error:  # a hostile header can raise anything from inside py7zr
        if factory.error:
            raise factory.error from None
        why = first_line(error) or type(error).__name__
        raise InputError(f"{path}: must be a whole 7z archive, got {why}; fetch it anew") from None


def _wanted(path: Path, archive: py7zr.SevenZipFile, names: Collection[str], max_expansion: int) -> list[str]:
    """Return the members to read, after a look at all names and sizes."""
    members = archive.list()
    for member in members:
        if member.filename.startswith("/") or ".." in PurePosixPath(member.filename.replace("\\", "/")).parts:
            raise InputError(f"{path}: members must stay in their folder, got {member.filename!r}; do not trust it")
    _check_memory(path, archive)
    wanted = [m for m in members if PurePosixPath(m.filename).name in names]
    found = [PurePosixPath(member.filename).name for member in wanted]
    if len(set(found)) < len(found):
        raise InputError(f"{path}: must hold each table once, got {', '.join(sorted(found))}; mend the archive")
    # a member that is not wanted is unpacked too where it lies before one that is
    n_bytes, limit = sum(m.uncompressed or 0 for m in members), max_expansion * path.stat().st_size
    if n_bytes > limit:
        raise InputError(
            f"{path}: must unpack to at most {max_expansion} times its size, got {n_bytes:,} bytes; "
            "if you trust it, raise `extract.max_expansion` in params.yaml"
        )
    return [member.filename for member in wanted]


def _check_memory(path: Path, archive: py7zr.SevenZipFile) -> None:
    """Refuse what would take more memory to unpack than any dump does: the header says how much, up to 4 GiB."""
    streams = archive.header.main_streams
    coders = [coder for folder in streams.unpackinfo.folders for coder in folder.coders] if streams else []
    n_bytes = max((_window(coder["method"], coder.get("properties") or b"") for coder in coders), default=0)
    if n_bytes > _MAX_WINDOW_BYTES:
        raise InputError(
            f"{path}: must unpack within a dictionary of {_MAX_WINDOW_BYTES:,} bytes, got one of {n_bytes:,}; "
            "pack it anew with a smaller one (7z a -md=64m)"
        )


def _window(method: bytes, properties: bytes) -> int:
    """Bytes of memory that a coder of a 7z archive is declared to need; 0 for those that need little.

    As in 7-Zip's DOC/Methods.txt and lzma.txt: LZMA and PPMd have 32 bits behind a byte, LZMA2 a byte of which the last
    bit is a mantissa and the others an exponent.
    """
    if method in (_LZMA, _PPMD) and len(properties) >= 5:
        return int.from_bytes(properties[1:5], "little")
    if method == _LZMA2 and properties:
        return min((2 | properties[0] & 1) << (properties[0] // 2 + 11), 2**32 - 1)
    return 0


class _Sinks(WriterFactory):  # type: ignore[misc]
    """Gives py7zr a taker to write each member to, and keeps the error that one raises."""

    def __init__(self, taker: Callable[[str], Taker]) -> None:
        self.taker = taker
        self.error: Exception | None = None

    def create(self, filename: str) -> _Sink:
        return _Sink(self, self.taker(PurePosixPath(filename).name))


class _Sink(Py7zIO):  # type: ignore[misc]
    """A member that is read as it is unpacked."""

    def __init__(self, owner: _Sinks, taker: Taker) -> None:
        self.owner, self.taker, self.n_bytes = owner, taker, 0

    def write(self, s: bytes | bytearray) -> int:
        self._try(lambda: self.taker.feed(bytes(s)))
        self.n_bytes += len(s)
        return len(s)

    def close(self) -> None:
        self._try(self.taker.close)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self.owner.error = error
            raise

    def read(self, size: int | None = None) -> bytes:
        raise NotImplementedError(f"read({size}): a sink is only written to")

    def seek(self, offset: int, whence: int = 0) -> int:
        assert offset == whence == 0, "py7zr rewinds a finished member and does nothing else"
        return 0

    def flush(self) -> None:
        pass

    def size(self) -> int:
        return self.n_bytes
