"""extract: parse, join and clean one source's raw files to candidate rows and prompts.

Reads data/pull/<source>/ as the source's format says; data/catalog/stack_exchange.csv has the quota groups of sites.
Writes data/extract/<source>.parquet (CANDIDATE) and data/extract/<source>.prompts.parquet (PROMPT), by id, either may
be empty, and data/extract/<source>.left_out.parquet (LEFT_OUT: what is no row, by reason). Prints all that in one line,
and how many rows have an unknown licence, author, date or address.

LIMA s2.1 and s2.2 name the sources; how each is read, and what is *our reading*, stands in stages/sources/<format>.py.
No threshold of quality is applied here: only what cannot be an example is left out.

Rows go to disk as they come, so memory hardly grows with the dump: by wikiHow's titles, some 300 bytes an article, and
by 400 rows for each part of `memory_mb`, where the rows do not come in the order of their ids. Each site of Stack
Exchange, and each file of wikiHow, Reddit and Super-NI, is kept under .cache/extract/ until the source is extracted
from other files: a killed run goes on at the last finished one. Reddit's files are joined anew from what is kept of
each; authored files are few and small, and nothing is kept of them. Sites are read in as many processes as there are
cores. Neither cores nor memory nor what was kept show in what is written.
"""

import csv
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from pydantic import Field

from stages.common.errors import InputError
from stages.common.files import write_table, writing
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.formats import Format, Source
from stages.core.rows import Candidate, Prompt, Tally
from stages.runtime.parallel import n_cores
from stages.runtime.progress import progress
from stages.runtime.shards import Shards, code_version, file_digest, key_of
from stages.runtime.table_parts import PartWriter, merge_parts
from stages.runtime.workers import Do, workers
from stages.schema import CANDIDATE, LEFT_OUT, PROMPT

if TYPE_CHECKING:
    from stages.sources.stack_exchange import Dump, Limits

CATALOG = Path("data/catalog/stack_exchange.csv")
_MIN_BYTES_A_WORKER = 16 * 2**20  # of dumps: for less, starting a process takes longer than it saves


class Params(Section):
    """Section `extract`."""

    default_group: str | None = Field(min_length=1)  # quota group of a site that the catalogue lacks; null: an error
    max_post_chars: int = Field(ge=1)  # characters of a question, answer, article or comment
    max_expansion: int = Field(ge=1)  # size of an archive's content over the archive's
    dialogues: bool  # whether comment threads of Stack Exchange become dialogues
    memory_mb: int = Field(ge=16)  # MiB of rows and their places, of all processes; their code takes about 100 each


class Parts(NamedTuple):
    """What a source gives so far: files sorted by id within each, and the account."""

    candidates: list[Path]
    prompts: list[Path]
    tally: Tally


def run(rows: Iterable[Candidate | Prompt], tally: Tally, folder: Path, *, memory_bytes: int) -> Parts:
    """Write a reader's rows to parts in a folder, however many there are.

    Args:
        rows: what the reader yields.
        tally: the reader's account, complete when the rows are.
        folder: where to.
        memory_bytes: of rows held at a time.
    """
    candidates = PartWriter(folder, "candidates", CANDIDATE, memory_bytes=memory_bytes)
    prompts = PartWriter(folder, "prompts", PROMPT, memory_bytes=memory_bytes)
    for row in rows:
        n_chars = sum(len(message["content"]) for message in row.messages)
        (candidates if isinstance(row, Candidate) else prompts).add(row, 2 * n_chars)
    for writer in (candidates, prompts):
        writer.close()
    n_rows = candidates.n_rows + prompts.n_rows
    assert tally.n_read + tally.n_further == n_rows + tally.left_out.total(), f"a reader lost count: {tally}"
    return Parts(sorted(folder.glob("candidates-*")), sorted(folder.glob("prompts-*")), tally)


def main(source: str) -> None:
    """Extract one source."""
    params = load_params("extract", Params)
    format_ = load_params(f"sources.{source}", Source).format
    folder = Path("data/pull") / source
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; `dvc repro pull@{source}` makes it")
    shards = Shards("extract", source)
    with shards.work() as work:
        if format_ == "stack_exchange":
            parts = read_sites(folder, shards, work, source=source, params=params)
        else:
            parts = READERS[format_](Files(folder, shards, work, source, params))
        write(source, parts, where=f"sources.{source}, {folder}")


def write(source: str, parts: Parts, *, where: str) -> None:
    """Write the three tables of a source and print their account.

    Raises:
        InputError: two rows have one id, or there are none at all.
    """
    tally, path = parts.tally, Path(f"data/extract/{source}.parquet")
    if not parts.candidates + parts.prompts:
        got = tally.line(n_candidates=0, n_prompts=0)
        raise InputError(f"{where}: must hold something to keep, got {got}; correct its `origin` in params.yaml")
    n_candidates = merge_parts(parts.candidates, path, CANDIDATE)
    n_prompts = merge_parts(parts.prompts, path.with_suffix(".prompts.parquet"), PROMPT)
    write_table(path.with_suffix(".left_out.parquet"), left_out(source, tally), LEFT_OUT)
    unknown = unknown_provenance([path, path.with_suffix(".prompts.parquet")])
    print(f"extract {source}: {tally.line(n_candidates=n_candidates, n_prompts=n_prompts)}{unknown}")


def unknown_provenance(paths: Iterable[Path]) -> str:
    """Say of how many rows licence, author, date or address is null, that is, unknown.

    Returns:
        A clause to put behind a sentence, empty where all are known.
    """
    names = {"license": "licence", "author": "author", "created": "date", "url": "address"}
    columns = [pl.scan_parquet(path).select(names.keys()).null_count() for path in paths]
    n_unknown = pl.concat(columns).sum().collect().row(0)
    counts = [f"{n:,} rows of unknown {what}" for n, what in zip(n_unknown, names.values(), strict=True) if n]
    return f"; {', '.join(counts)}" if counts else ""


# --- sites of Stack Exchange -------------------------------------------------------------------------------------


def read_sites(folder: Path, shards: Shards, work: Path, *, source: str, params: Params) -> Parts:
    """Read every site that is not kept, in as many processes as there are cores."""
    from stages.sources import stack_exchange

    limits = stack_exchange.Limits(params.max_post_chars, params.max_expansion, params.dialogues)
    dumps = stack_exchange.dumps(
        folder, source=source, groups=read_catalog(CATALOG), default_group=params.default_group, limits=limits
    )
    n = min(n_cores(), 1 + sum(dump.n_bytes for dump in dumps) // _MIN_BYTES_A_WORKER)
    limits = limits._replace(memory_bytes=params.memory_mb * 2**20 // n)
    code = code_version(stack_exchange.__name__)
    with ThreadPoolExecutor(n) as threads, workers(n) as do:  # a fault ends the workers first, so that no thread waits
        one = partial(_read_site, shards=shards, work=work, folder=folder, limits=limits, code=code, do=do)
        each = map if n == 1 else threads.map
        keys = list(progress(each(one, dumps), desc="extract", total=len(dumps), unit="site"))
    shards.keep_only(keys)
    total = Parts([], [], Tally(stack_exchange.UNIT))
    for key in keys:
        note = shards.find(key)
        assert note is not None, "it was found or made above"
        total.tally.add(Tally.from_note(note))
        total.candidates.extend(shards.files(key))
    return total


def _read_site(dump: "Dump", *, shards: Shards, work: Path, folder: Path, limits: "Limits", code: str, do: Do) -> str:
    """Read one site unless it is kept; gives its key."""
    from stages.sources import stack_exchange

    digests = zip(dump.files, do(file_digest, dump.files), strict=True)
    key = key_of(
        {
            "site": dump.site._asdict(),
            "files": {str(path.relative_to(folder)): digest for path, digest in digests},
            "code": code,
            "limits": limits._replace(memory_bytes=0)._asdict(),
        }
    )
    if shards.find(key) is None:
        with shards.make(key) as (made, note):
            site_work = work / key
            with writing(site_work):
                site_work.mkdir()
            try:
                note.update(stack_exchange.extract(dump, site_work, made, limits, do).note())
            finally:
                shutil.rmtree(site_work)
    return key


def left_out(source: str, tally: Tally) -> pl.DataFrame:
    """What is no candidate, by reason (LEFT_OUT, sorted by reason)."""
    rows = [(source, reason, n) for reason, n in sorted(tally.left_out.items()) if n]
    return pl.DataFrame(rows, schema=dict(LEFT_OUT), orient="row")


# --- files of other formats ---------------------------------------------------------------------------------------


class Files(NamedTuple):
    """A source that is read file by file."""

    folder: Path
    shards: Shards
    work: Path
    source: str
    params: Params

    @property
    def memory_bytes(self) -> int:
        """Of rows held at a time."""
        return self.params.memory_mb * 2**20

    def each(
        self, paths: Sequence[Path], code: str, fill: Callable[[Path, Path], dict[str, Any]], *, in_order: bool = False
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the key and note of each file's shard, read now or kept; at the end others are gone.

        Args:
            paths: the files.
            code: module that reads them.
            fill: writes what is in a file to a folder, and gives a note on it.
            in_order: whether what is in a file depends on those before.
        """
        limits = {"max_post_chars": self.params.max_post_chars, "max_expansion": self.params.max_expansion}
        fixed = {"code": code_version(code), "stage": file_digest(Path(__file__)), "limits": limits}
        keys: list[str] = []
        for path in progress(paths, desc="extract", total=len(paths), unit="file"):
            file = {"name": str(path.relative_to(self.folder)), "digest": file_digest(path)}
            key = key_of({**fixed, "file": file, "before": keys[-1:] if in_order else []})
            note = self.shards.find(key)
            if note is None:
                with self.shards.make(key) as (made, new):
                    new.update(fill(path, made))
                note = new
            keys.append(key)
            yield key, note
        self.shards.keep_only(keys)

    def add(self, total: Parts, key: str, note: dict[str, Any]) -> None:
        """Take in a shard that `run` has filled."""
        total.tally.add(Tally.from_note(note))
        for path in self.shards.files(key):
            (total.prompts if path.name.startswith("prompts-") else total.candidates).append(path)


# The imports stand inside: a stage on one format is not to depend on the code of the others.


def read_tasks(files: Files) -> Parts:
    """Read Super-NI, a task a shard."""
    from stages.sources import natural_instructions

    def fill(path: Path, made: Path) -> dict[str, Any]:
        tally = Tally(natural_instructions.UNIT)
        limits = {"max_post_chars": files.params.max_post_chars, "memory_bytes": files.memory_bytes}
        rows = natural_instructions.read(path, source=files.source, tally=tally, **limits)
        return run(rows, tally, made, memory_bytes=files.memory_bytes).tally.note()

    total = Parts([], [], Tally(natural_instructions.UNIT))
    for key, note in files.each(natural_instructions.files(files.folder), natural_instructions.__name__, fill):
        files.add(total, key, note)
    return total


def read_articles(files: Files) -> Parts:
    """Read wikiHow, a file a shard; a title that an earlier file has is not taken again."""
    from stages.sources import wikihow

    seen = wikihow.Seen()

    def fill(path: Path, made: Path) -> dict[str, Any]:
        tally, n_before = Tally(wikihow.UNIT), len(seen.ids)
        rows = wikihow.read(
            path, source=files.source, max_post_chars=files.params.max_post_chars, tally=tally, seen=seen
        )
        run(rows, tally, made, memory_bytes=files.memory_bytes)
        return {"tally": tally.note(), "titles": list(seen.ids)[n_before:]}

    total = Parts([], [], Tally(wikihow.UNIT))
    for key, note in files.each(wikihow.files(files.folder), wikihow.__name__, fill, in_order=True):
        files.add(total, key, note["tally"])
        for title in note["titles"]:
            if title not in seen.ids:  # of a shard that was kept
                seen.add(title)
    return total


def read_subreddits(files: Files) -> Parts:
    """Read Reddit: what is needed of each file is a shard, and they are joined."""
    from stages.sources import reddit

    params = files.params

    def fill(path: Path, made: Path) -> dict[str, Any]:
        limits = {"max_post_chars": params.max_post_chars, "max_expansion": params.max_expansion}
        return reddit.gather(path, made / "rows.zst", **limits)._asdict()

    gathered, n_comments, tally = [], 0, Tally(reddit.UNIT)
    for key, note in files.each(reddit.files(files.folder), reddit.__name__, fill):
        gathered += files.shards.files(key)
        n_comments += note["n_comments"]
        tally.aside.update(note["aside"])
    rows = reddit.join(gathered, source=files.source, max_post_chars=params.max_post_chars, tally=tally)
    parts = run(rows, tally, files.work, memory_bytes=files.memory_bytes)
    reddit.tell_missing(tally, n_comments)
    return parts


def read_authored(files: Files) -> Parts:
    """Read what authors wrote, whole."""
    from stages.sources import authored

    tally = Tally(authored.UNIT)
    rows = authored.read(files.folder, source=files.source, tally=tally)
    return run(rows, tally, files.work, memory_bytes=files.memory_bytes)


READERS: dict[Format, Callable[[Files], Parts]] = {
    "wikihow": read_articles,
    "reddit": read_subreddits,
    "natural_instructions": read_tasks,
    "authored": read_authored,
}


def read_catalog(path: Path) -> dict[str, str]:
    """Read the quota group of each Stack Exchange site.

    Raises:
        InputError: the file is missing, has other columns, or names a site twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; it belongs to the project, restore it")
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if header != ["site", "group"] or any(len(line) != 2 or not all(line) for line in lines):
        raise InputError(f"{path}: must have two columns, site and group, all filled, got others; mend it")
    groups = dict(lines)
    if len(groups) < len(lines):
        raise InputError(f"{path}: must name each site once, got {len(lines) - len(groups)} repeated; remove them")
    return groups


if __name__ == "__main__":
    run_stage(main, key="source")
