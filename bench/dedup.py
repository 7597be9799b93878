"""Near-duplicates: how fast, how many found, how many rightly, in how much memory; beside three peers.

python -m bench.dedup [--sizes 200000 1000000] [--peer-sizes 20000] [--peers datasketch=<python> ...] [--repeats 3]
                      [--templated 20000]

Documents are those of bench/dedup_corpus.py. Each run is a process of its own, from parquet to a result on disk:
`dedup` is the stage (near-duplicates, dev and test prompts, tables written), `near-duplicates alone` the stage without
prompts and without the tables of what stays, which is what the peers do; `again` has all rows known, `one source more`
all but an eighth. `--templated` adds a corpus of 200,000 documents of which so many are of one template, alike but
below the threshold. A peer is named with the Python of its environment: `uv venv`, or

    python -m venv /tmp/peers && /tmp/peers/bin/pip install -r bench/requirements.txt

(text-dedup in one of its own, bench/requirements-text-dedup.txt). CPU is user and system time of the process and its
children, memory the highest sum of their resident sets, looked at 20 times a second. Recall is over the planted pairs
of that Jaccard, precision over the rows called duplicates. Figures are medians, with lowest and highest where n > 1.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from bench.dedup_corpus import make
from bench.workspace import ROOT, machine
from stages import dedup
from stages.common.files import empty_table, write_table
from stages.common.params import read_yaml
from stages.core.kernels import compiled_kernels
from stages.core.known import blank_findings
from stages.runtime.streams import scan_table
from stages.schema import DEDUP_DROPPED, EXAMPLE, PROMPT

BUCKETS = ((0.8, 0.85), (0.85, 0.9), (0.9, 0.95), (0.95, 1.01))


class Cost(NamedTuple):
    """What a process took."""

    wall_s: float
    cpu_s: float
    peak_mb: float


class Quality(NamedTuple):
    """What it found."""

    recall: float  # of pairs at .8 or above
    by_bucket: list[float]
    precision: float


def measured(command: Sequence[str], folder: Path) -> Cost:
    """Run a command to its end."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, resident_mb(process.pid))
            time.sleep(0.05)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(folder / 'log.txt').read_text()[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, peak)


def resident_mb(session: int) -> float:
    """The resident sets of all processes of a session, in MB."""
    pages = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def judged(folder: Path, rows: set[int], gone: set[int]) -> Quality:
    """Compare the rows called duplicates with the planted pairs; pairs with a row in `gone` are no one's to find."""
    pairs = [
        (jaccard, {a, b}) for a, b, _, jaccard in pl.read_parquet(folder / "pairs.parquet").rows() if not {a, b} & gone
    ]
    found = [(jaccard, bool(pair & rows)) for jaccard, pair in pairs if jaccard >= BUCKETS[0][0]]
    true = {row for jaccard, pair in pairs if jaccard >= BUCKETS[0][0] for row in pair}
    by_bucket = [statistics.fmean(hit for jaccard, hit in found if low <= jaccard < high) for low, high in BUCKETS]
    return Quality(statistics.fmean(hit for _, hit in found), by_bucket, len(rows & true) / len(rows))


def dropped_rows(path: Path) -> tuple[set[int], set[int]]:
    """Row numbers of a DEDUP_DROPPED table: near-duplicates, and the others."""
    rows = pl.read_parquet(path).with_columns(row=pl.col("id").str.split(":").list.last().cast(pl.Int64))
    is_near = rows["rule"] == "near_duplicate"
    return set(rows.filter(is_near)["row"]), set(rows.filter(~is_near)["row"])


def alone(folder: Path) -> None:
    """Near-duplicates alone, from parquet to the table of what is dropped and why."""
    params = dedup.Params.model_validate(read_yaml(ROOT / "params.yaml")["dedup"])
    kept = scan_table(folder / "data/quality/kept.parquet", EXAMPLE)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        means = dedup.Means(compiled_kernels(), blank_findings(0, params.n_permutations), file)
        found = dedup.run(kept, empty_table(EXAMPLE).lazy(), empty_table(PROMPT), params, means)
    write_table(folder / "alone.parquet", found.dropped, DEDUP_DROPPED)


def stage(folder: Path, *, forget: str | None) -> Cost:
    """Run the stage; `forget` what is known of "all" sources, of "one" or of none."""
    (folder / "params.yaml").write_text(json.dumps({"dedup": read_yaml(ROOT / "params.yaml")["dedup"]}))
    kept = sorted((folder / ".cache/dedup").glob("*.findings"))
    for path in kept if forget == "all" else kept[:1] if forget == "one" else []:
        path.unlink()
    return measured([sys.executable, "-m", "stages.dedup"], folder)


def ours(folder: Path, n: int, repeats: int) -> None:
    """Measure the stage on one corpus."""
    itself = [sys.executable, "-m", "bench.dedup", "--alone", str(folder)]
    costs = [measured(itself, folder) for _ in range(repeats)]
    show("near-duplicates alone", n, costs, judged(folder, *dropped_rows(folder / "alone.parquet")))
    for name, forget in (("dedup", "all"), ("dedup again", None), ("dedup, one source more", "one")):
        costs = [stage(folder, forget=forget) for _ in range(repeats)]
        show(name, n, costs, judged(folder, *dropped_rows(folder / "data/dedup/dropped.parquet")))


def peer(name: str, python: str, folder: Path, n: int, repeats: int) -> None:
    """Measure a peer on one corpus."""
    costs = [measured([python, str(ROOT / "bench/dedup_peers.py"), name, str(folder)], folder) for _ in range(repeats)]
    result = json.loads((folder / f"{name}.json").read_text())
    show(result["versions"], n, costs, judged(folder, set(result["rows"]), set()))


def show(name: str, n: int, costs: Sequence[Cost], quality: Quality) -> None:
    """Print one row."""
    cells = [name, f"{n:,}", str(len(costs)), spread([cost.wall_s for cost in costs], 1)]
    cells += [spread([cost.cpu_s for cost in costs], 1), spread([n / cost.cpu_s for cost in costs], 0)]
    cells += [spread([cost.peak_mb for cost in costs], 0), f"{quality.recall:.4f}"]
    cells += [f"{value:.3f}" for value in quality.by_bucket] + [f"{quality.precision:.4f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def spread(values: Sequence[float], digits: int) -> str:
    """The median, with lowest and highest where there are several."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def main() -> None:
    """Make the corpora, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000, 1_000_000], help="documents")
    parser.add_argument("--peer-sizes", type=int, nargs="+", default=[20_000], help="documents, for peers and for us")
    parser.add_argument("--peers", nargs="*", default=[], help="<name>=<python>: datasketch, rensa, text_dedup")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--templated", type=int, default=0, help="documents of one template, among 200,000")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "lima-bench-dedup")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.alone)
        return
    print(f"{machine()}\n")
    start = time.perf_counter()
    compiled_kernels().jaccard(*compiled_kernels().hash_grams(compiled_kernels().hash_words([b"a b c"]), 1)[:1] * 2)
    print(f"numba loads, and compiles where it has not: {time.perf_counter() - start:.1f} s\n")
    buckets = " | ".join(f"{low:.2f}-{min(high, 1):.2f}" for low, high in BUCKETS)
    print(f"| what | documents | n | wall, s | CPU, s | documents/CPU-s | peak, MB | recall | {buckets} | precision |")
    print("|---" * (9 + len(BUCKETS)) + "|")
    for n in sorted({*arguments.sizes, *arguments.peer_sizes}):
        folder = arguments.folder / str(n)
        make(folder, n)
        ours(folder, n, arguments.repeats)
        for name, _, python in (item.partition("=") for item in arguments.peers if n in arguments.peer_sizes):
            peer(name, python, folder, n, arguments.repeats)
    if arguments.templated:
        folder = arguments.folder / f"templated-{arguments.templated}"
        make(folder, 200_000, n_templated=arguments.templated)
        ours(folder, 200_000, arguments.repeats)


if __name__ == "__main__":
    main()
