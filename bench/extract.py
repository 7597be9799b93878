"""A dump of 1 GB to questions joined with their best answer, beside two public ways; and `extract` on real archives.

python -m bench.extract [--mb 1000] [--repeats 3] [--only ours] [--origin ../shared/data/origin]

Every contender reads the same invented Posts.xml and writes the joined rows, HTML not cleaned, to parquet, in a process
of its own. The peers are restated here in a few lines, for what they do and not for how they look:

- `lxml`: iterparse, questions and best answers in a dict;
- `line by line`: RedPajama's (togethercomputer/RedPajama-Data, stack_exchange): each line an element of its own,
  answers sorted by a score that is text;
- `by AnswerCount`: EleutherAI's (stackexchange-dataset): ElementTree's iterparse, a question is done when as many
  answers as its AnswerCount says have come.

"whole extract" is ours with cleaning, resumable, as `python -m stages.extract` runs it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import polars as pl

from bench.posts import write_posts
from bench.processes import Usage, measured
from bench.workspace import ENVIRONMENT, ROOT, machine
from stages.core.posts import Site
from stages.core.rows import Tally
from stages.runtime.workers import n_cores, workers
from stages.sources import stack_exchange, stack_exchange_lines

SCHEMA = ["question", "answer", "title", "body", "response", "score"]
LIMITS = stack_exchange.Limits(max_post_chars=200_000, max_expansion=200)
MEMORY_BYTES = 400 * 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000, help="size of the dump")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=[*WAYS, "whole extract"], help="measure this one alone")
    parser.add_argument("--origin", type=Path, default=ROOT / "../shared/data/origin", help="folder of real dumps")
    parser.add_argument("--way", nargs=3, metavar=("NAME", "POSTS", "OUT"), help="(used by this program itself)")
    arguments = parser.parse_args()
    if arguments.way:
        name, posts, out = arguments.way
        WAYS[name](Path(posts), Path(out))
        return
    print(f"{machine()}, lxml {version('lxml')}, numpy {version('numpy')}\n")
    with tempfile.TemporaryDirectory(prefix="lima-bench-") as folder:
        compare(Path(folder), arguments.mb, arguments.repeats, arguments.only)
        if arguments.origin.is_dir() and not arguments.only:
            real(Path(folder), arguments.origin.resolve(), arguments.repeats)


def compare(folder: Path, n_mb: int, repeats: int, only: str | None) -> None:
    """Print a row for each contender."""
    posts = folder / "data/pull/big/big.stackexchange.com/Posts.xml"
    posts.parent.mkdir(parents=True)
    truth = write_posts(posts, n_bytes=n_mb * 10**6)
    mb = posts.stat().st_size / 1e6
    print(f"{mb:,.0f} MB, {len(truth):,} questions with an answer; MB/s of XML: median (lowest to highest)\n")
    print("| way | n | MB/s wall | MB/CPU-s | CPU-s | peak MB, children too | rows | wrong answers | missing |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in WAYS:
        if only in (None, name):
            command = [sys.executable, "-m", "bench.extract", "--way", name, str(posts), str(folder / "out")]
            usages = [measured(command, cwd=ROOT, environment=ENVIRONMENT) for _ in range(repeats)]
            rows = pl.read_parquet(sorted((folder / "out").glob("*.parquet")), columns=["question", "answer"])
            found = dict(rows.iter_rows())
            wrong = sum(truth[question] != answer for question, answer in found.items())
            show(
                name, usages, mb, f"{len(found):,} | {wrong:,} ({wrong / len(found):.1%}) | {len(truth) - len(found):,}"
            )
    if only in (None, "whole extract"):
        usages = [extract(folder, "big: {format: stack_exchange, origin: big}", "big") for _ in range(repeats)]
        n_rows = pl.scan_parquet(folder / "data/extract/big.parquet").select(pl.len()).collect().item()
        show("whole extract", usages, mb, f"{n_rows:,} | | ")


def show(name: str, usages: list[Usage], mb: float, rest: str) -> None:
    """Print one row."""
    wall, cpu = ([mb / usage[i] for usage in usages] for i in (0, 1))
    memory = max(usage.peak_bytes for usage in usages) / 1e6
    seconds = statistics.median(usage.cpu_s for usage in usages)
    print(
        f"| {name} | {len(usages)} | {spread(wall)} | {spread(cpu)} | {seconds:.1f} | {memory:,.0f} | {rest} |",
        flush=True,
    )


def spread(values: Iterable[float]) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"


def extract(folder: Path, sources: str, source: str) -> Usage:
    """Run `python -m stages.extract` in a folder that has data/pull, with nothing kept from before."""
    text = (ROOT / "profiles/miniature.yaml").read_text()
    text = text.replace("\nsources:\n", f"\nsources:\n  {sources}\n", 1)
    text = text.replace("default_group: null ", "default_group: stack_exchange_other ", 1)
    (folder / "params.yaml").write_text(text.replace("dialogues: false", "dialogues: true", 1))
    (folder / "data/catalog").mkdir(parents=True, exist_ok=True)
    (folder / "data/catalog/stack_exchange.csv").write_bytes((ROOT / "data/catalog/stack_exchange.csv").read_bytes())
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "DVC_ROOT": tempfile.mkdtemp(dir=folder)}
    return measured([sys.executable, "-m", "stages.extract", source], cwd=folder, environment=environment)


def real(folder: Path, origin: Path, repeats: int) -> None:
    """Print what `extract` makes of the real dumps, by format."""
    print("\n| real source | n | s wall, median | CPU-s | peak MB | what it says |")
    print("|---|---|---|---|---|---|")
    for path in sorted(path for path in origin.iterdir() if path.is_dir()):
        target = folder / f"data/pull/{path.name}"
        target.symlink_to(path)
        sources = f"{path.name}: {{format: {path.name}, origin: real}}"
        text = (ROOT / "profiles/miniature.yaml").read_text()
        if f"\n  {path.name}:" in text:
            sources = "none: {format: authored, origin: real}"
        usages = [extract(folder, sources, path.name) for _ in range(repeats)]
        wall, cpu = (statistics.median(usage[i] for usage in usages) for i in (0, 1))
        memory = max(usage.peak_bytes for usage in usages) / 1e6
        said = " ".join(usages[0].output.split())
        print(f"| {path.name} | {repeats} | {wall:.1f} | {cpu:.1f} | {memory:,.0f} | {said} |", flush=True)


# --- the ways ----------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A range of the second pass, to be written to a file."""

    work: Path
    path: Path
    low: int
    high: int


def ours(posts: Path, out: Path) -> None:
    """Two passes over the bytes, in as many processes as there are cores."""
    out.mkdir(exist_ok=True)
    n = n_cores()
    dump = stack_exchange.Dump(Site("big", "g", "s"), (posts,))
    with tempfile.TemporaryDirectory(dir=out.parent) as folder, workers(n) as do:
        work = Path(folder)
        limits = LIMITS._replace(memory_bytes=MEMORY_BYTES // n)
        bounds = stack_exchange.first_pass(dump, work, limits, do)
        list(do(write_part, [Part(work, out / f"{i:05d}.parquet", *pair) for i, pair in enumerate(bounds)]))


def write_part(part: Part) -> None:
    """Write the joined rows of one range."""
    threads = stack_exchange_lines.threads(part.work, part.low, part.high, tally=Tally("questions"))
    rows = [
        (int(thread.key), int(thread.answer["Id"]), thread.question.get("Title"), thread.question.get("Body"),
         thread.answer.get("Body"), int(thread.answer["Score"]))
        for thread in threads
    ]  # fmt: skip
    write(rows, part.path)


def write(rows: list[tuple[Any, ...]], path: Path) -> None:
    """Write joined rows."""
    table = pl.DataFrame(dict(zip(SCHEMA, map(list, zip(*rows, strict=True)), strict=True)))
    table.write_parquet(path, compression="zstd", compression_level=1)


def lxml(posts: Path, out: Path) -> None:
    """The usual way: iterparse, clear, keep what is wanted."""
    from lxml import etree

    def rows() -> Iterator[dict[str, str]]:
        for _, element in etree.iterparse(posts, tag="row", huge_tree=True):
            yield dict(element.attrib)
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]

    questions: dict[str, dict[str, str]] = {}
    best: dict[str, dict[str, str]] = {}
    for row in rows():
        if row["PostTypeId"] == "1":
            questions[row["Id"]] = row
        elif row["PostTypeId"] == "2":
            other = best.get(row["ParentId"])
            if not other or (-int(row["Score"]), int(row["Id"])) < (-int(other["Score"]), int(other["Id"])):
                best[row["ParentId"]] = row
    join(questions, best, out)


def line_by_line(posts: Path, out: Path) -> None:
    """RedPajama's way: an element a line, the best by a score that is text."""
    questions: dict[str, dict[str, str]] = {}
    answers: dict[str, list[dict[str, str]]] = {}
    with posts.open(encoding="utf-8") as file:
        for line in file:
            if "<row" not in line:
                continue
            row = ElementTree.fromstring(line).attrib
            if row["PostTypeId"] == "1":
                questions[row["Id"]] = row
            elif row["PostTypeId"] == "2":
                answers.setdefault(row["ParentId"], []).append(row)
    best = {parent: sorted(given, key=lambda row: row["Score"], reverse=True)[0] for parent, given in answers.items()}
    join(questions, best, out)


def by_answer_count(posts: Path, out: Path) -> None:
    """EleutherAI's way: a question is written when AnswerCount answers have come."""
    waiting: dict[str, tuple[dict[str, str], list[dict[str, str]]]] = {}
    questions, best = {}, {}
    for _, element in ElementTree.iterparse(posts):
        row = dict(element.attrib)
        element.clear()
        if row.get("PostTypeId") == "1" and int(row.get("AnswerCount", 0)):
            waiting[row["Id"]] = (row, [])
        elif row.get("PostTypeId") == "2" and row["ParentId"] in waiting:
            question, given = waiting[row["ParentId"]]
            given.append(row)
            if len(given) == int(question["AnswerCount"]):
                questions[question["Id"]] = question
                best[question["Id"]] = max(given, key=lambda answer: int(answer["Score"]))
                del waiting[question["Id"]]
    join(questions, best, out)


def join(questions: dict[str, dict[str, str]], best: dict[str, dict[str, str]], out: Path) -> None:
    """Write the pairs of two dicts, a batch at a time."""
    out.mkdir(exist_ok=True)
    for path in out.glob("*.parquet"):
        path.unlink()
    keys = [key for key in questions if key in best]
    for i in range(0, len(keys), 20_000):
        rows = [
            (int(key), int(best[key]["Id"]), questions[key]["Title"], questions[key]["Body"], best[key]["Body"],
             int(best[key]["Score"]))
            for key in keys[i : i + 20_000]
        ]  # fmt: skip
        write(rows, out / f"{i:09d}.parquet")


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "ours": ours,
    "lxml": lxml,
    "line by line": line_by_line,
    "by AnswerCount": by_answer_count,
}

if __name__ == "__main__":
    main()
