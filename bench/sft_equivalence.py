"""How far fine-tuning differs when the same steps are carried out in other ways, the stage run as a user runs it.

python -m bench.sft_equivalence [--epochs 3]

A LLaMA of 0.2 M random weights, 24 examples as long as LIMA's, steps of 8, residual dropout .2, fp32; for each
optimizer one run in one process with one thread, and beside it the others: the differences of the losses of all steps,
nats a token, and of the weights at the end. SGD has no clipping, so a wrong factor of the gradient would show; AdamW
hides factors and enlarges rounding where a gradient is next to nothing. `killed` ends with -9 once the state after a
step is there, and is run again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch

from bench.sft import ROOT, machine, mean, weights
from bench.sft_inputs import MAX_TOKENS, SHAPES, Recipe, make

TWO = {"LIMA_PROCESSES": "2"}
WAYS: dict[str, tuple[dict[str, object], dict[str, str]]] = {  # changes of section sft, and of the environment
    "the same again": ({}, {}),
    "an example a forward pass": ({"micro_batch_tokens": MAX_TOKENS}, {}),
    "gradient checkpointing": ({"gradient_checkpointing": True}, {}),
    "2 threads, a replica each": ({}, {"OMP_NUM_THREADS": "2"}),
    "2 processes, DDP": ({}, {**TWO, "LIMA_STRATEGY": "ddp"}),
    "2 processes, ZeRO-2": ({}, {**TWO, "LIMA_STRATEGY": "zero2"}),
    "2 processes, ZeRO-3": ({}, {**TWO, "LIMA_STRATEGY": "zero3"}),
    "killed, gone on": ({}, {"LIMA_STATE_EVERY_S": "0"}),
}


class End(NamedTuple):
    """What a run came to."""

    losses: list[float]
    weights: dict[str, torch.Tensor]
    model: bytes  # of the file


def run(folder: Path, changes: Mapping[str, object], environment: Mapping[str, str], *, kill: bool = False) -> End:
    """Run the stage with other parameters."""
    for name in ("models/sft", "data/sft", ".cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    text = (folder / "params.yaml").read_text()
    params = json.loads(text)
    params["sft"].update(changes)
    (folder / "params.yaml").write_text(json.dumps(params))
    command = [sys.executable, "-m", "stages.sft", "curated"]
    whole = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder), **environment}
    if kill:
        process = subprocess.Popen(command, cwd=folder, env=whole, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(folder.glob(".cache/sft/curated/*/state-*3")):
            time.sleep(0.01)
        process.kill()
        if process.wait() != -9:
            raise SystemExit("the run was over before it could be killed; give it more --epochs")
    done = subprocess.run(command, cwd=folder, env=whole, capture_output=True, text=True, check=False)
    (folder / "params.yaml").write_text(text)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    (candidate,) = (folder / "models/sft/curated").iterdir()
    losses = pl.read_csv(folder / "data/sft/curated/loss.csv")["loss"].to_list()
    return End(losses, weights(candidate), (candidate / "model.safetensors").read_bytes())


def line(optimizer: str, way: str, one: End, other: End) -> str:
    """One row of the table."""
    losses = [abs(a - b) for a, b in zip(one.losses, other.losses, strict=True)]
    apart = [(one.weights[name] - other.weights[name]).abs() for name in one.weights]
    cells = [optimizer, way, f"{max(losses):.1e}", f"{statistics.fmean(losses):.1e}"]
    cells += [f"{max(t.max().item() for t in apart):.1e}", f"{mean(apart):.1e}"]
    cells.append("the same" if one.model == other.model else "others")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    print(f"{machine()}\n")
    print("| optimizer | beside one process, one thread | loss, largest | mean | weights, largest | mean | bytes |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="lima-bench-equivalence-") as scratch:
        folder = Path(scratch)
        for optimizer, lr in (("sgd", 0.1), ("adamw", 1e-3)):
            recipe = Recipe(epochs, 8, lr, lr / 10, False, False, 2 * MAX_TOKENS, 0.2, optimizer)
            make(folder, SHAPES["mini"], 24, recipe)
            one = run(folder, {}, {})
            for way, (changes, environment) in WAYS.items():
                other = run(folder, changes, environment, kill=way.startswith("killed"))
                print(line(optimizer, way, one, other), flush=True)


if __name__ == "__main__":
    main()
