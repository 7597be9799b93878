"""Fine-tuning as the stage does it, beside TRL's SFTTrainer: speed, memory, the whole time, and whether they agree.

python -m bench.sft [--shape tiny] [--steps 4 | --epochs 15] [--repeats 3] [--peers FOLDER] [--ways WAY ...]

The stage runs as a user runs it (`python -m stages.sft`): it loads the base, tries itself, trains, saves a candidate,
writes its outs; TRL does the same work in bench/sft_peer.py. Both train a LLaMA of that shape with random weights on
random tokens, as long as LIMA's Table 1 says (within a row log-normal, ours), 2,048 at the most, in steps of 64; AdamW,
1e-5 to 1e-6, clipping at 1, no residual dropout, which TRL lacks. bf16 with fp32 master weights on a GPU, fp32 without.
`--steps` trains that many steps of one epoch; `--epochs` all 1,000 examples. Each run is a process of its own, the two
sides in turn. Neither keeps training states.

FOLDER has TRL: pip install --no-deps --target .venv-bench/trl -r bench/requirements-trl.txt. A WAY (bench/sft_peer.py)
is how TRL does it; one that fails on this machine is a line that says so.

Real tokens are those of examples, no padding. The stage's rate is over all its steps, TRL's without its first, which
warms up: the stage does so in its trial. MFU counts no recomputation. Memory is of tensors on a GPU, resident without.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from safetensors.torch import load_file

from bench.processes import measured
from bench.sft_inputs import SHAPES, Recipe, make
from stages.core.schedule import schedule
from stages.core.training_cost import Shape, flops
from stages.runtime.machine import cpu_name, peak_of_gpu
from stages.runtime.model import weight_files

ROOT = Path(__file__).resolve().parent.parent
WAYS = {
    True: ["padding-free+flash_attention_2+liger", "padding-free+flex_attention+liger", "padded+sdpa+liger"],
    False: ["padding-free+sdpa", "padded+sdpa"],
}


class Cost(NamedTuple):
    """What a run took."""

    wall_s: float  # of the process, its imports included
    load_s: float
    train_s: float
    save_s: float
    tokens_s: float
    peak_bytes: int


def ours(folder: Path) -> tuple[Cost, list[float]]:
    """Run the stage; what it took, and the loss of each step."""
    for name in ("models/sft", "data/sft", "metrics", ".cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder), "LIMA_STATE_EVERY_S": "inf"}
    usage = measured([sys.executable, "-m", "stages.sft", "curated"], cwd=folder, environment=environment)
    run = json.loads((folder / "metrics/sft/curated/run.json").read_text())
    times, speed = run["times"], run["speed"]
    cost = Cost(
        usage.wall_s, times["load_s"] + times["preflight_s"], times["train_s"], times["save_s"],
        speed["tokens_per_s"], speed["peak_bytes"],
    )  # fmt: skip
    return cost, pl.read_csv(folder / "data/sft/curated/loss.csv")["loss"].to_list()


def theirs(folder: Path, peers: Path, way: str, batch: int) -> tuple[Cost, list[float], dict[str, str]]:
    """Run TRL; what it took, the loss of each step, and versions."""
    shutil.rmtree(folder / "peer", ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{peers.resolve()}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "bench.sft_peer", str(folder), way, str(batch)]
    usage = measured(command, cwd=folder, environment=environment)
    told = json.loads((folder / "peer.json").read_text())
    rate = told["later_tokens"] / told["later_s"]
    cost = Cost(usage.wall_s, told["load_s"], told["train_s"], told["save_s"], rate, told["peak_bytes"])
    return cost, told["losses"], told["versions"]


def differences(folder: Path, left: Sequence[float], right: Sequence[float], *, n_first: int) -> list[str]:
    """Rows of the table that says how far both agree.

    Args:
        folder: with the models of both.
        left: losses of the stage.
        right: losses of TRL.
        n_first: steps of the first epoch; in later ones the orders differ.
    """
    apart = [abs(a - b) for a, b in zip(left[:n_first], right[:n_first], strict=True)]
    found = [f"| loss of a step, {n_first} steps | {max(apart):.1e} | {statistics.fmean(apart):.1e} |"]
    if len(left) == n_first:
        (candidate,) = (folder / "models/sft/curated").iterdir()
        start, mine, other = (weights(path) for path in (folder / "models/base", candidate, folder / "peer"))
        far = [(mine[name].float() - other[name].float()).abs() for name in mine]
        moved = [(mine[name][: len(start[name])].float() - start[name].float()).abs() for name in mine]
        found += [
            f"| weights | {max(t.max().item() for t in far):.1e} | {mean(far):.1e} |",
            f"| weights, from the base | {max(t.max().item() for t in moved):.1e} | {mean(moved):.1e} |",
        ]
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a model folder."""
    return {name: tensor for path in weight_files(folder) for name, tensor in load_file(path).items()}


def mean(tensors: Sequence[torch.Tensor]) -> float:
    """Over all numbers of all tensors."""
    return sum(t.sum(dtype=torch.float64).item() for t in tensors) / sum(t.numel() for t in tensors)


def line(name: str, costs: Sequence[Cost], shape: Shape, lengths: Sequence[int]) -> str:
    """One row: medians, with lowest and highest where there are several."""
    peak = peak_of_gpu()
    a_token = flops(shape, lengths) / sum(lengths)
    cells = [name, str(len(costs)), spread([cost.tokens_s for cost in costs], 0)]
    cells.append(f"{statistics.median(c.tokens_s for c in costs) * a_token / peak:.1%}" if peak else "-")
    cells.append(spread([cost.peak_bytes / 2**30 for cost in costs], 2))
    cells += [spread([getattr(cost, part) for cost in costs], 1) for part in ("load_s", "train_s", "save_s", "wall_s")]
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], digits: int) -> str:
    """The median, with lowest and highest where there are several."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def machine() -> str:
    """What was measured on, and with what."""
    gpus = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate"))
    return f"{gpus or f'{os.cpu_count()} x {cpu_name()}'}; Python {sys.version.split()[0]}, {packages}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    has_gpu = torch.cuda.is_available()
    parser.add_argument(
        "--shape", choices=[name for name in SHAPES if name != "mini"], default="7b" if has_gpu else "tiny"
    )
    parser.add_argument("--steps", type=int, help="of one epoch, in place of all 1,000 examples")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="examples a step (64)")
    parser.add_argument("--tokens", type=int, default=8192, help="of our forward pass (8192)")
    parser.add_argument("--peer-batch", type=int, default=8, help="examples of TRL's forward pass (8)")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, in both")
    parser.add_argument("--peers", type=Path, help="folder with TRL; without it the stage runs alone")
    parser.add_argument("--ways", nargs="+", default=WAYS[has_gpu], help="of TRL")
    parser.add_argument("--folder", type=Path, help="to work in, with room for three models; a temporary one otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lima-bench-sft-") as scratch:
        measure(arguments, arguments.folder or Path(scratch))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Run both sides in turn, and print both tables."""
    shape, has_gpu = SHAPES[arguments.shape], torch.cuda.is_available()
    n_examples = min(1000, (arguments.steps or 1000) * arguments.batch)
    recipe = Recipe(
        arguments.epochs, arguments.batch, 1e-5, 1e-6, has_gpu, arguments.checkpointing, arguments.tokens
    )  # fmt: skip
    make(folder, shape, n_examples, recipe)
    if has_gpu:
        torch.cuda.empty_cache()
    lengths = pl.read_parquet(folder / "data/render/curated.parquet")["n_tokens"].to_list()
    n_first = sum(
        step.epoch == 1
        for step in schedule(n_examples, epochs=1, global_batch_size=arguments.batch, lr=1, lr_end=1, seed=0)
    )
    print(
        f"{machine()}\n\n{arguments.shape} ({shape.n_weights / 1e9:.3g} B weights), {'bf16' if has_gpu else 'fp32'}, "
        f"{n_examples:,} examples of {sum(lengths):,} tokens, {arguments.epochs} x {n_first} steps of "
        f"{arguments.batch}, gradient checkpointing {'on' if arguments.checkpointing else 'off'}\n"
    )
    costs: dict[str, list[Cost]] = {}
    agreed: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    for _ in range(arguments.repeats):
        cost, losses = ours(folder)
        costs.setdefault(f"stages.sft, {arguments.tokens} tokens", []).append(cost)
        for way in arguments.ways if arguments.peers else []:
            if way in failed:
                continue
            try:
                cost, other, versions = theirs(folder, arguments.peers, way, arguments.peer_batch)
            except SystemExit as error:
                failed[way] = str(error).strip().splitlines()[-1]
                continue
            name = f"TRL {versions['trl']}, {way}, {arguments.peer_batch} examples"
            costs.setdefault(name, []).append(cost)
            agreed[name] = differences(folder, losses, other, n_first=n_first)
    print("| what | n | real tokens/s | MFU | peak, GiB | load, s | train, s | save, s | whole, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, found in costs.items():
        print(line(name, found, shape, lengths))
    for way, why in failed.items():
        print(f"| TRL, {way} | 0 | failed: {why} | | | | | | |")
    for name, found in agreed.items():
        print(f"\n{name} beside the stage:\n\n| difference | largest | mean |\n|---|---|---|")
        print("\n".join(found))


if __name__ == "__main__":
    main()
