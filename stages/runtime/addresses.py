"""Bring the files of a source from the address under which they lie: plan, check, download.

What a pin names and is kept is taken without a word to the network. Of the rest each is looked at first, so that what
is missing, too large or more than the disk holds is said before the first byte comes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stages.common.errors import InputError
from stages.core.catalog import Known, Listed, Pin, read_files_xml, read_sha256sums, without_substitutes
from stages.core.origins import joined
from stages.runtime.progress import bar
from stages.runtime.transfers.downloads import Downloads, Found, Job

_MIN_FREE_BYTES = 64 * 2**20  # left on the disk by files of unknown length


class Asked(NamedTuple):
    """What to bring, and from where."""

    source: str  # its key
    address: str  # under which its files lie
    wanted: Sequence[Listed]
    pins: Mapping[str, Pin]
    pins_path: str


class _Plan(NamedTuple):
    here: dict[str, Pin]
    todo: list[tuple[Job, Found]]


def bring(asked: Asked, downloads: Downloads, *, max_total_bytes: int, by_hand: Callable[[str], str]) -> dict[str, Pin]:
    """Download what is not kept yet.

    Args:
        asked: what to bring, and from where.
        downloads: how.
        max_total_bytes: more is refused, before the first is fetched where all lengths are known, else when it comes.
        by_hand: what a person has to do for a file that is not there, as the end of a sentence.

    Returns:
        What there is of each file, by name and sorted; all of it is kept.

    Raises:
        InputError: a file cannot be had, is not what it should be, or all are too much.
    """
    plan = _plan(asked, downloads, by_hand)
    n_bytes = _check_sizes(asked.source, plan, max_total_bytes, downloads.kept.root)
    found = dict(plan.here)
    meter = _Meter(asked.source, max_total_bytes, downloads.kept.root)
    with bar(desc=f"pull {asked.source}", total=n_bytes, unit="B", unit_scale=True) as progress_bar:
        jobs = [job for job, _ in plan.todo]

        def advance(n: int) -> None:
            progress_bar.update(n)
            if n_bytes is None:
                meter.add(n)

        sums = downloads.side_by_side(jobs, downloads.fetch, advance=advance)
    for job, sha256 in zip(jobs, sums, strict=True):
        found[job.name] = Pin(downloads.kept.path(sha256).stat().st_size, sha256, job.address)
    total = sum(pin.n_bytes for pin in found.values())
    print(f"pull {asked.source}: {len(found)} files of {total:,} bytes, {len(jobs)} of them downloaded now")
    return dict(sorted(found.items()))


class _Meter:
    """Counts what comes, where servers did not say beforehand how much that is."""

    def __init__(self, source: str, max_total_bytes: int, root: Path) -> None:
        self.source, self.max_total_bytes, self.root = source, max_total_bytes, root
        self.n_bytes = 0

    def add(self, n: int) -> None:
        """Count n bytes more.

        Raises:
            InputError: that is more than may be, or the disk is all but full.
        """
        self.n_bytes += n
        if self.n_bytes > self.max_total_bytes:
            raise InputError(
                f"sources.{self.source}: must have at most {self.max_total_bytes:,} bytes to download, got more of "
                "files whose length no server says; what came is kept, choose some by "
                f"`sources.{self.source}.only` or raise `pull.max_total_bytes`"
            )
        if (free := shutil.disk_usage(self.root).free) < _MIN_FREE_BYTES:
            raise InputError(
                f"{self.root}: must have {_MIN_FREE_BYTES:,} bytes free, got {free:,} while files come whose length no "
                f"server says; what came is kept, free space, or choose files by `sources.{self.source}.only`"
            )


def _plan(asked: Asked, downloads: Downloads, by_hand: Callable[[str], str]) -> _Plan:
    """Find out what is kept, and what of the rest can be had."""
    pins, kept = asked.pins, downloads.kept
    wanted = without_substitutes(asked.wanted, pins, is_final=False)
    pinned = [file.name for file in wanted if file.name in pins]
    is_sound = downloads.side_by_side(
        pinned, lambda name, _: kept.sound(pins[name].sha256), advance=lambda _: None
    )  # as many are hashed at once as are downloaded
    here = {name: pins[name] for name, sound in zip(pinned, is_sound, strict=True) if sound}
    missing = [file for file in wanted if file.name not in here]
    if not missing:
        return _Plan(here, [])
    there = _looked_at(asked, missing, downloads)
    published = _published(asked.address, downloads)
    wanted = without_substitutes(missing, there, is_final=True)
    if absent := [file.name for file in wanted if file.name not in there]:
        more = f", nor are {len(absent) - 1} others of {len(wanted)}" if absent[1:] else ""
        raise InputError(
            f"{joined(asked.address, absent[0])}: no such file{more}; correct `origin`, leave out what is not there by "
            f"`sources.{asked.source}.only`, or put it there{by_hand(absent[0])}"
        )
    todo: list[tuple[Job, Found]] = []
    for file in wanted:
        address = joined(asked.address, file.name)
        job = _job(asked, address, file, published)
        seen = kept.seen(address)
        is_same = seen and seen.validator and Found(seen.n_bytes, seen.validator) == there[file.name]
        if seen and is_same and job.known.sums.get("sha256", seen.sha256) == seen.sha256 and kept.sound(seen.sha256):
            here[file.name] = Pin(seen.n_bytes, seen.sha256, address)
        else:
            todo.append((job, there[file.name]))
    return _Plan(here, todo)


def _looked_at(asked: Asked, missing: Sequence[Listed], downloads: Downloads) -> dict[str, Found]:
    addresses = [joined(asked.address, file.name) for file in missing]
    with bar(desc=f"look at {asked.source}", total=len(missing), unit="file") as progress_bar:
        looks = downloads.side_by_side(
            addresses, lambda address, _: downloads.look(address), advance=lambda _: progress_bar.update(1)
        )
    return {file.name: look for file, look in zip(missing, looks, strict=True) if look}


def _published(address: str, downloads: Downloads) -> dict[str, Known]:
    """What is published beside the files: their checksums, and on archive.org their sizes."""
    item = f"{address.rpartition('/')[2]}_files.xml"
    known: dict[str, Known] = {}
    if listing := downloads.read_small(joined(address, item)):
        known |= read_files_xml(listing, says=item)
    if listing := downloads.read_small(joined(address, "SHA256SUMS")):
        known |= read_sha256sums(listing.decode("utf-8", "replace"))
    return known


def _job(asked: Asked, address: str, file: Listed, published: Mapping[str, Known]) -> Job:
    if pin := asked.pins.get(file.name):
        known = Known(f"{asked.pins_path}, which the first download wrote", pin.n_bytes, {"sha256": pin.sha256})
        remedy = (
            f"it has changed since: remove its line there to take it as it is now, or "
            f"`dvc pull pull@{asked.source}` for the old one"
        )
        return Job(file.name, address, known, remedy, is_pinned=True)
    known = Known("the catalog", None, file.sums) if file.sums else published.get(file.name, Known("", None, {}))
    return Job(file.name, address, known, "it is damaged or another file: tell its keeper", is_pinned=False)


def _check_sizes(source: str, plan: _Plan, max_total_bytes: int, root: Path) -> int | None:
    """Hold what is to be downloaded against limit and disk; returns its bytes if all are known."""
    sizes = [found.n_bytes if job.known.n_bytes is None else job.known.n_bytes for job, found in plan.todo]
    n_bytes = sum(size or 0 for size in sizes)
    if n_bytes > max_total_bytes:
        raise InputError(
            f"sources.{source}: must have at most {max_total_bytes:,} bytes to download, got {n_bytes:,} in "
            f"{len(sizes)} files; choose some by `sources.{source}.only` or raise `pull.max_total_bytes`"
        )
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if n_bytes > free:
        raise InputError(
            f"{root}: must have {n_bytes:,} bytes free for sources.{source}, got {free:,}; free space, or choose "
            f"files by `sources.{source}.only`"
        )
    return None if None in sizes else n_bytes
