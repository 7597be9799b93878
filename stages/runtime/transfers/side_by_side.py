"""Several jobs at a time in threads that an interrupt need not wait for, and that stop together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from stages.common.errors import InputError
from stages.common.files import first_line

J = TypeVar("J")
R = TypeVar("R")
E = TypeVar("E")


class StoppedError(Exception):
    """Another job's fault ended the run."""


def side_by_side(
    jobs: Iterable[J],
    work: Callable[[J, Callable[[int], None]], R],
    *,
    n_threads: int,
    stopped: threading.Event,
    advance: Callable[[int], object],
) -> list[R]:
    """Do `work(job, report)` for each job.

    The first fault sets `stopped`, and is raised when all threads have ended, which `work` does by StoppedError or
    soon. An interrupt does not wait for them: they are daemons, and what they write is safe against a kill.

    Args:
        jobs: what to do.
        work: how; it tells `report` how far it came, in bytes.
        n_threads: jobs at a time.
        stopped: set when the run ends early.
        advance: is called in this thread with those bytes, and with 0 for a finished job.

    Returns:
        What `work` returned, in the order of jobs.

    Raises:
        LimaError: as `work` raised it.
        InputError: a file could not be written.
    """
    todo: queue.SimpleQueue[tuple[int, J]] = queue.SimpleQueue()
    for numbered in enumerate(jobs):
        todo.put(numbered)
    n_jobs = todo.qsize()
    events: queue.SimpleQueue[int | tuple[int, R] | BaseException] = queue.SimpleQueue()

    def run() -> None:
        while not stopped.is_set():
            try:
                number, job = todo.get_nowait()
            except queue.Empty:
                return
            try:
                events.put((number, work(job, events.put)))
            except BaseException as error:  # handed to the main thread
                events.put(error)
                return

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(n_threads, n_jobs))]
    for thread in threads:
        thread.start()
    results: dict[int, R] = {}
    try:
        while len(results) < n_jobs:
            event = _next(events)
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, tuple):
                results[event[0]] = event[1]
            advance(0 if isinstance(event, tuple) else event)
    except Exception as error:
        stopped.set()
        for thread in threads:
            thread.join()
        raise _told(error) from None
    except BaseException:
        stopped.set()
        raise
    return [results[number] for number in range(n_jobs)]


def _next(events: queue.SimpleQueue[E]) -> E:
    """Wait for an event. An interrupt may reach another thread, and this one sees it only when it wakes."""
    while True:
        try:
            return events.get(timeout=0.2)
        except queue.Empty:
            continue


def _told(error: Exception) -> Exception:
    if not isinstance(error, OSError):
        return error
    cause = first_line(error.strerror or error)
    return InputError(f"{error.filename or '.cache/downloads'}: cannot be written, {cause}; free space or mend rights")
