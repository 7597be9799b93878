"""What the strategies of `sample` cost, beside plain numpy and apricot.

python -m bench.sample [--repeats 3] [--rows 100000] [--peer /path/to/venv/bin/python]

Two tables: the two that look at all similarities, 1,000 rows of 100,000 and of 20,000 vectors of 384 dimensions in
400 clusters of unlike sizes; and every strategy on rows of text. Each figure is of a process of its own on one thread:
CPU seconds (user and system) and wall seconds of the draw, highest memory of the process with the rows in it. `--peer`
runs apricot too, in an environment of its own: python -m venv DIR && DIR/bin/pip install -r
bench/requirements-sample.txt
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.workspace import ROOT, machine
from stages.core.facility_location import facility_location
from stages.core.k_center import central, k_center
from stages.core.strategies import Context, Deita, order_rows
from stages.core.vectors import F32, ONE, fixed_point, tfidf
from stages.schema import EXAMPLE

N_DRAWN, N_DIMENSIONS, N_CLUSTERS = 1000, 384, 400
STRATEGIES = ("random", "longest", "tags", "deita", "k_center", "facility_location")
PEER = """
import json, pathlib, sys, time
import numpy as np
from apricot import FacilityLocationSelection
vectors = np.load(sys.argv[1]) / 4064
start, before = time.perf_counter(), time.process_time()
model = FacilityLocationSelection({n}, metric="cosine", optimizer="lazy", n_jobs=1).fit(vectors)
wall_s, cpu_s = time.perf_counter() - start, time.process_time() - before
peak = pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(json.dumps(dict(picks=model.ranking.tolist(), wall_s=wall_s, cpu_s=cpu_s, peak_mb=int(peak) / 1024)))
"""


def points(n_rows: int) -> F32:
    """Fixed-point vectors in clusters: the k-th largest has a share of about k^-0.8."""
    rng = np.random.default_rng(3)
    shares = np.arange(1, N_CLUSTERS + 1) ** -0.8
    centres = rng.standard_normal((N_CLUSTERS, N_DIMENSIONS), dtype=np.float32)
    vectors = rng.standard_normal((n_rows, N_DIMENSIONS), dtype=np.float32)
    vectors *= rng.uniform(0.45, 1.17, (n_rows, 1)).astype(np.float32)
    vectors += centres[rng.choice(N_CLUSTERS, n_rows, p=shares / shares.sum())]
    for start in range(0, n_rows, 1024):
        vectors[start : start + 1024] = fixed_point(vectors[start : start + 1024])
    return vectors


def rows_of_text(n_rows: int) -> pl.DataFrame:
    """Rows of about 150 words; those of a domain share half of theirs."""
    rng = np.random.default_rng(5)
    words = np.array([f"w{number}" for number in range(40_000)])
    domains = rng.integers(0, 100, n_rows)
    texts = []
    for domain in domains:
        own = words[domain * 300 + (300 * rng.random(75) ** 2).astype(int)]
        texts.append(" ".join([*own, *words[(40_000 * rng.random(rng.integers(20, 130)) ** 4).astype(int)]]))
    return pl.DataFrame(
        {
            "id": [f"b:{number:07}" for number in range(n_rows)],
            "source": "b",
            "domain": [f"d{domain}" for domain in domains],
            "group": [f"g{domain % 5}" for domain in domains],
            "score": rng.geometric(0.05, n_rows),
            "messages": [
                [{"role": "user", "content": t[:80]}, {"role": "assistant", "content": t[80:]}] for t in texts
            ],
            **dict.fromkeys(("url", "author", "license", "created")),
            "tags": [[f"t{number}" for number in rng.integers(0, 2000, rng.integers(1, 6))] for _ in range(n_rows)],
            "prompt_score": rng.geometric(0.05, n_rows),
        },
        schema=EXAMPLE,
    ).sort("id")


def plain_k_center(vectors: F32, n: int) -> np.ndarray:
    """Every similarity to every pick."""
    picks = [central(vectors)]
    nearest = vectors @ vectors[picks[0]]
    nearest[picks[0]] = np.inf
    for _ in range(n - 1):
        picks.append(int(nearest.argmin()))
        np.maximum(nearest, vectors @ vectors[picks[-1]], out=nearest)
        nearest[picks[-1]] = np.inf
    return np.array(picks)


def plain_facility_location(vectors: F32, n: int) -> np.ndarray:
    """Lazy greedy over the whole matrix of similarities, one row at a time."""
    similar = np.maximum(vectors @ vectors.T, 0)
    nearest = np.zeros(len(vectors), dtype=np.float32)
    bounds = similar.sum(axis=1, dtype=np.float64)
    known, picks = np.zeros(len(vectors), dtype=int), []
    while len(picks) < n:
        row = int(bounds.argmax())
        if known[row] == len(picks):
            picks.append(row)
            np.maximum(nearest, similar[row], out=nearest)
            bounds[row] = -np.inf
        else:
            bounds[row] = np.maximum(similar[row] - nearest, 0).sum(dtype=np.float64)
            known[row] = len(picks)
    return np.array(picks)


CASES: dict[str, Callable[[F32, int], np.ndarray]] = {
    "k-center, ours": k_center,
    "k-center, plain numpy": plain_k_center,
    "facility location, ours": facility_location,
    "facility location, plain numpy, lazy": plain_facility_location,
}


def one(case: str, n_rows: int) -> dict[str, Any]:
    """Run one case in this process."""
    if case in CASES:
        vectors = points(n_rows)
        start, before = time.perf_counter(), time.process_time()
        picks = CASES[case](vectors, N_DRAWN)
    else:
        rows = rows_of_text(n_rows)
        context = Context(0, Deita(by="score", max_cosine=0.9), tfidf)
        start, before = time.perf_counter(), time.process_time()
        picks = order_rows(rows, N_DRAWN, strategy=case, context=context)  # type: ignore[arg-type]
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - before
    return {"picks": picks.tolist(), "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Highest resident memory of this process since it was started; `ru_maxrss` would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def measure(command: list[str], repeats: int) -> list[dict[str, Any]]:
    """Run a command that prints JSON, on one thread."""
    found = []
    environment = {**os.environ, **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")}
    for _ in range(repeats):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{command[:4]} failed:\n{done.stderr[-2000:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def figures(found: list[dict[str, Any]]) -> str:
    """Median with lowest and highest of CPU and wall seconds, highest memory."""
    cells = []
    for name in ("cpu_s", "wall_s"):
        values = [run[name] for run in found]
        cells.append(f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")
    return " | ".join([*cells, f"{max(run['peak_mb'] for run in found):,.0f}"])


def show_similarity(cases: list[tuple[str, int]], repeats: int, peer: str | None) -> None:
    """The first table; picks are held against those of the first case of their kind and size."""
    print("| draw of 1,000 | rows | CPU s | wall s | peak MB | picks | mean cosine to the nearest pick |")
    print("|---|---:|---:|---:|---:|---|---:|")
    ours: dict[str, list[int]] = {}
    for case, n in cases:
        if "apricot" in case:
            if peer is None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "vectors.npy"
                np.save(path, points(n))
                found = measure([peer, "-c", PEER.format(n=N_DRAWN), str(path)], repeats)
        else:
            found = measure([sys.executable, "-m", "bench.sample", "--case", case, "--rows", str(n)], repeats)
        kind, picks = case.partition(",")[0], found[0]["picks"]
        first = ours.setdefault(f"{kind} {n}", picks)
        same = "the same" if picks == first else f"{len(set(picks) & set(first)):,} shared"
        vectors = points(n)
        nearest = [(vectors[at : at + 4096] @ vectors[picks].T).max(axis=1) for at in range(0, n, 4096)]
        cosine = float(np.concatenate(nearest).mean(dtype=np.float64)) / ONE
        print(f"| {case} | {n:,} | {figures(found)} | {same} | {cosine:.4f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000, help="of k-center, and of the strategies on text")
    parser.add_argument("--peer", help="python of an environment with apricot")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(one(arguments.case, arguments.rows)))
        return
    print(f"{machine()}\n")
    cases = [(case, arguments.rows if case.startswith("k-center") else 20_000) for case in CASES]
    cases += [("facility location, ours", 10_000), ("facility location, apricot, lazy", 10_000)]
    show_similarity(cases, arguments.repeats, arguments.peer)
    print(f"\n| strategy, 1,000 of {arguments.rows:,} rows of text | CPU s | wall s | peak MB |\n|---|---:|---:|---:|")
    for case in STRATEGIES:
        command = [sys.executable, "-m", "bench.sample", "--case", case, "--rows", str(arguments.rows)]
        print(f"| {case} | {figures(measure(command, arguments.repeats))} |", flush=True)


if __name__ == "__main__":
    main()
