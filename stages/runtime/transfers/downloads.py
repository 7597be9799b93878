"""Downloads: several at a time, each patient, gone on with where it broke off, checked, and kept.

What a fault does:
    no or broken connection, stand-still, early end, 408, 425, 429, 5xx
                                 waits (Retry-After if given, for all; else longer each time, with jitter) and asks for
                                 the rest; `max_attempts` in a row without a new byte end the run
    another version than the one begun with, another part than the one asked for
                                 begins anew, as often
    a web page or another kind of file, two lengths, a wrong checksum, 4xx, redirects without end
                                 ends the run at once; only a download that was gone on with is begun anew first
What came until then is kept, also after a kill: the next run goes on from there.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from stages.common.errors import InputError
from stages.core import transfer
from stages.core.catalog import ALGORITHMS, Known
from stages.core.transfer import Again, Append, Refused, Step, Whole
from stages.runtime.transfers.kept_files import KeptFiles, Partial, checksums
from stages.runtime.transfers.remotes import Answer, DroppedError, HopelessError, Remotes
from stages.runtime.transfers.side_by_side import StoppedError, side_by_side

J = TypeVar("J")
R = TypeVar("R")

_MAX_LIST_BYTES = 64 * 2**20  # of a file of checksums
_SLOWEST_BYTES_PER_S = 1024  # less than this over `timeout_s` is a stand-still


class Job(NamedTuple):
    """A file to fetch."""

    name: str
    address: str
    known: Known  # bytes and checksums, as far as known
    remedy: str  # what to do if it is another file than that
    is_pinned: bool  # a wrong one that came in one piece is kept: it may be the new one, and wanted


class Found(NamedTuple):
    """What a server says of a file before it is fetched."""

    n_bytes: int | None
    validator: str


class Downloads:
    """One run over some files."""

    def __init__(
        self,
        kept: KeptFiles,
        *,
        concurrency: int,
        timeout_s: float,
        max_attempts: int,
        max_file_bytes: int,
        token: str | None = None,
    ) -> None:
        self.kept = kept
        self.concurrency = concurrency
        self.max_attempts = max_attempts
        self.max_file_bytes = max_file_bytes
        self.timeout_s = timeout_s
        self.remotes = Remotes(timeout_s=timeout_s, token=token)
        self.stopped = threading.Event()  # after a fault: nobody sleeps or reads on
        self.resume_at = 0.0  # monotonic clock; set by Retry-After for all

    def look(self, address: str) -> Found | None:
        """Ask what a file is like; None if there is none.

        Raises:
            InputError: no answer.
        """

        def ask() -> Step:
            with self.remotes.ask("HEAD", address, transfer.request_headers(transfer.Have(0, ""))) as answer:
                return _next_step(answer, transfer.Have(0, ""))

        todo = self._until_settled(ask, address)
        if isinstance(todo, Append):
            return Found(todo.total, todo.validator)
        return None if isinstance(todo, Refused) and todo.gone else Found(None, "")  # GET will tell

    def read_small(self, address: str) -> bytes | None:
        """Fetch a list that a server may have; None if it has none, or one too long.

        Raises:
            InputError: no answer.
        """
        content = bytearray()

        def ask() -> Step:
            content.clear()
            with self.remotes.ask("GET", address, transfer.request_headers(transfer.Have(0, ""))) as answer:
                todo = _next_step(answer, transfer.Have(0, ""))
                if isinstance(todo, Append):
                    for piece in answer.pieces:
                        content.extend(piece)
                        if len(content) > _MAX_LIST_BYTES:
                            return Refused("is too long", "")
                    if todo.total is not None and len(content) != todo.total:
                        return Again("ends early")
                return todo

        return bytes(content) if isinstance(self._until_settled(ask, address), Append) else None

    def fetch(self, job: Job, report: Callable[[int], None]) -> str:
        """Fetch a file and keep it.

        Args:
            job: what.
            report: is told bytes that came, less those that were of no use.

        Returns:
            Its sha256.

        Raises:
            InputError: it cannot be had, or is not what it should be.
        """
        with self.kept.partial(job.address) as partial:
            report(partial.n_bytes)
            is_fresh = not partial.n_bytes
            while True:
                is_fresh = self._come_by(job, partial, report) and is_fresh
                fault = self._verified(job, partial, is_fresh=is_fresh)
                if not isinstance(fault, str):
                    return fault.sha256
                if is_fresh:
                    raise InputError(f"{job.address}: {fault}; {job.remedy}")
                is_fresh = True  # gone on with: the two parts may not fit
                report(-partial.n_bytes)
                partial.begin(0, "")

    def _come_by(self, job: Job, partial: Partial, report: Callable[[int], None]) -> bool:
        """Fetch until the file is whole; returns whether it came in one piece."""
        n_idle = n_restarts = n_asked = 0
        furthest = partial.n_bytes
        while True:
            n_asked += 1
            todo = self._attempted(lambda: self._receive(job, partial, report))
            if isinstance(todo, Whole):
                return n_asked == 1
            if isinstance(todo, Refused):
                raise InputError(f"{job.address}: {todo.why}; {todo.remedy}")
            assert isinstance(todo, Again)
            n_idle = 0 if partial.n_bytes > furthest else n_idle + 1
            furthest = max(furthest, partial.n_bytes)
            if todo.from_start:
                n_restarts += 1
                furthest = 0
                report(-partial.n_bytes)
                partial.begin(0, "")
            if max(n_idle, n_restarts) >= self.max_attempts:
                raise self._given_up(job.address, todo.why)
            self._pause(todo, n_idle)

    def _receive(self, job: Job, partial: Partial, report: Callable[[int], None]) -> Step:
        """Make one request for what is missing, and write what comes."""
        # without a validator only a checksum can tell whether two parts belong together
        have = partial.have if partial.validator or job.known.sums else transfer.Have(0, "")
        with self.remotes.ask("GET", job.address, transfer.request_headers(have)) as answer:
            todo = _next_step(answer, have)
            if not isinstance(todo, Append):
                return todo
            total = job.known.n_bytes if todo.total is None else todo.total
            if refused := self._unfit(job, todo, total):
                return refused
            report(todo.offset - partial.n_bytes)
            partial.begin(todo.offset, todo.validator)
            return self._write(job, partial, answer, total, report)

    def _write(
        self, job: Job, partial: Partial, answer: Answer, total: int | None, report: Callable[[int], None]
    ) -> Step:
        since, n_before = time.monotonic(), partial.n_bytes
        for piece in answer.pieces:
            if self.stopped.is_set():
                raise StoppedError
            if time.monotonic() - since > self.timeout_s:
                if partial.n_bytes - n_before < _SLOWEST_BYTES_PER_S * self.timeout_s:
                    return Again("it stands still")
                since, n_before = time.monotonic(), partial.n_bytes
            if not partial.n_bytes and (kind := transfer.wrong_kind(job.name, piece)):
                return Refused(f"must be the file {job.name}, got {kind}", "correct `origin`, or try it in a browser")
            if partial.n_bytes + len(piece) > (self.max_file_bytes if total is None else total):
                return Again("it sends more than it said", from_start=True)
            partial.write(piece)
            report(len(piece))
        return Whole() if total is None or partial.n_bytes == total else Again("it ends early")

    def _unfit(self, job: Job, todo: Append, total: int | None) -> Refused | None:
        known = job.known
        if total is not None and known.n_bytes not in (None, total):
            return Refused(f"must have {known.n_bytes:,} bytes by {known.says}, got {total:,}", job.remedy)
        if total is not None and total > self.max_file_bytes:
            return Refused(
                f"must have at most {self.max_file_bytes:,} bytes, got {total:,}", "raise `pull.max_file_bytes`"
            )
        if total is None and not todo.is_framed and not known.sums:
            return Refused("must come with a length or a checksum, or a broken download would look whole, got neither",
                           "put a SHA256SUMS beside it, or use another server")  # fmt: skip
        return None

    def _verified(self, job: Job, partial: Partial, *, is_fresh: bool) -> _Kept | str:
        """Keep a whole file, or say what is wrong with it; a wrong one gone on with is of no use."""
        head, tail = partial.ends()
        if kind := transfer.wrong_kind(job.name, head):
            return f"must be the file {job.name}, got {kind}"
        if cut := transfer.cut_off(job.name, head, tail, partial.n_bytes):
            return f"must be whole, got {cut}"
        if job.known.n_bytes not in (None, partial.n_bytes):
            return f"must have {job.known.n_bytes:,} bytes by {job.known.says}, got {partial.n_bytes:,}"
        algorithm = next((name for name in ALGORITHMS if name in job.known.sums), "sha256")
        sums = checksums(partial.path, (algorithm,))
        expected = job.known.sums.get(algorithm, sums[algorithm])
        if sums[algorithm] == expected or (job.is_pinned and is_fresh):
            self.kept.keep(partial, sums["sha256"], address=job.address)
        if sums[algorithm] == expected:
            return _Kept(sums["sha256"])
        return f"must have {algorithm} {expected} by {job.known.says}, got {sums[algorithm]}"

    def _until_settled(self, ask: Callable[[], Step], address: str) -> Step:
        n_attempts = 0
        while isinstance(todo := self._attempted(ask), Again):
            n_attempts += 1
            if n_attempts >= self.max_attempts:
                raise self._given_up(address, todo.why)
            self._pause(todo, n_attempts)
        return todo

    def _attempted(self, ask: Callable[[], Step]) -> Step:
        if self.stopped.is_set():
            raise StoppedError
        try:
            return ask()
        except DroppedError as error:
            return Again(f"it {error}")
        except HopelessError as error:
            return Refused(error.why, error.remedy)

    def _given_up(self, address: str, why: str) -> InputError:
        return InputError(
            f"{address}: cannot be fetched, {why} ({self.max_attempts} attempts in a row); run again when it is well, "
            "what came is kept and gone on with"
        )

    def _pause(self, todo: Again, n_idle: int) -> None:
        if todo.wait_s is not None:
            self.resume_at = max(self.resume_at, time.monotonic() + todo.wait_s)
        else:
            self.stopped.wait(transfer.pause_s(max(1, n_idle)) * _jitter(0.5, 1.0))
        while (left := self.resume_at - time.monotonic()) > 0 and not self.stopped.is_set():
            self.stopped.wait(left * _jitter(1.0, 1.1))

    def side_by_side(
        self, jobs: Iterable[J], work: Callable[[J, Callable[[int], None]], R], *, advance: Callable[[int], object]
    ) -> list[R]:
        """Do `work` for each job, as many at a time as may be; see stages.runtime.transfers.side_by_side."""
        return side_by_side(jobs, work, n_threads=self.concurrency, stopped=self.stopped, advance=advance)


class _Kept(NamedTuple):
    sha256: str


def _jitter(low: float, high: float) -> float:
    """A factor that keeps downloads from asking in step; it reaches no artifact."""
    return secrets.SystemRandom().uniform(low, high)


def _next_step(answer: Answer, have: transfer.Have) -> Step:
    return transfer.step(answer.status, answer.headers, have, now=datetime.now(UTC))
