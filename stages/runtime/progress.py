"""A progress bar for anything over a few seconds, silent where there is no terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], *, desc: str, total: int | None = None, unit: str = "row") -> Iterator[T]:
    """Pass `items` on, with a bar on standard error when that is a terminal."""
    return iter(tqdm(items, desc=desc, total=total, unit=unit, disable=not sys.stderr.isatty(), leave=False))


def bar(*, desc: str, total: int | None, unit: str, unit_scale: bool = False) -> "tqdm[None]":
    """A bar to be moved by hand (`.update(n)`), for work that is not an iteration; close it with `with`."""
    return tqdm(desc=desc, total=total, unit=unit, unit_scale=unit_scale, disable=not sys.stderr.isatty(), leave=False)
