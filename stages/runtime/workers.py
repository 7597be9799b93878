"""Tasks in as many processes as the machine has cores; in this one where they are not worth starting others."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from stages.common.errors import InputError

Do = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # as `map`: results in the order of the tasks


@contextmanager
def workers(n: int) -> Iterator[Do]:
    """Give a `map` that has its tasks done by n processes, or in this one where n is 1.

    The function and its tasks are pickled. Each process is started anew and uses one thread for polars.

    Raises:
        InputError: a process was killed, most likely for its memory.
    """
    if n == 1:
        yield map
        return
    with (
        _environment(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1"),
        ProcessPoolExecutor(n, get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)) as pool,
    ):
        try:
            yield pool.map
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed, likely for lack of memory; lower `extract.memory_mb` in params.yaml"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(parent: int) -> None:
    """End without a word at an interrupt, which the parent tells, and when the parent is gone, even if killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_outlive_not, args=(parent,), daemon=True).start()


def _outlive_not(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
