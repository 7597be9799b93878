"""plan: what fine-tuning would take in memory, disk, time and money, before anything runs.

Prints a table from the formulas of stages/core/training_cost.py, for the paper's two models on several machines, with
LIMA's training set (1,000 examples, 750,000 tokens), 15 epochs and six candidates; and for the model in models/base, if
there is one; all weights, and with LoRA. Figures are estimates, by the formulas of the trial before a training
(stages/runtime/preflight.py). The time follows from the MFU that you give: take the one that a run's progress bar and
run.json show, in which recomputation does not count. A card's memory is what CUDA reports; of it 92 % are planned for.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from stages.common.main import run_command
from stages.core.schedule import steps_per_epoch
from stages.core.training_cost import (
    CARDS,
    GIB,
    MFU,
    OVERHEAD_BYTES,
    Run,
    Setting,
    Shape,
    choose,
    disk,
    memory,
    seconds,
)  # fmt: skip
from stages.runtime.shapes import read_shape

# LIMA's Table 1: examples, and the mean tokens of a prompt with its response, at most 2,048.
LIMA_LENGTHS = [*[640] * 200, *[649] * 200, *[1823] * 200, *[308] * 150, *[328] * 50, *[374] * 200]
N_EPOCHS, N_CANDIDATES = 15, 6
BATCH, BATCH_65B = 64, 32  # examples a step
LLAMA = {
    "LLaMA 7B": Shape(32, 4096, 11008, 32, 32, 128, 32000, tied=False),
    "LLaMA 65B": Shape(80, 8192, 22016, 64, 64, 128, 32000, tied=False),
}


class Machine(NamedTuple):
    """Some hosts of one kind of card."""

    card: str
    n_hosts: int
    n_on_host: int
    host_bytes: int


MACHINES = [
    Machine("RTX 4090", 1, 1, 64 * GIB),
    Machine("H200", 1, 1, 256 * GIB),
    Machine("H100", 1, 8, 2000 * GIB),
    Machine("H200", 1, 8, 2000 * GIB),
    Machine("H100", 2, 8, 2000 * GIB),
]


def lima(shape: Shape, setting: Setting, *, batch: int) -> Run:
    """The paper's run of a model, with `batch` examples a step."""
    n_steps = N_EPOCHS * steps_per_epoch(len(LIMA_LENGTHS), global_batch_size=batch)
    return Run(shape, setting, LIMA_LENGTHS * N_EPOCHS, n_steps, N_CANDIDATES)


def row(name: str, run: Run, machine: Machine, *, mfu: float, price: float) -> str:
    """One line of the table.

    Args:
        name: of the model.
        run: of it.
        machine: what trains it.
        mfu: share of the cards' peak that is reached, in (0, 1], recomputation not counted.
        price: US dollars for an hour of one card.
    """
    shape, setting = run.shape, run.setting
    card, n = CARDS[machine.card], machine.n_hosts * machine.n_on_host
    where = f"{machine.n_hosts} x {machine.n_on_host} x {machine.card}"
    strategy = choose(
        shape,
        setting,
        n_processes=n,
        n_on_host=machine.n_on_host,
        device_bytes=card.memory_bytes,
        host_bytes=machine.host_bytes,
    )
    if strategy is None:
        return f"| {name} | {where} | does not fit | | | | | |"
    needed = memory(shape, setting, strategy, n_processes=n, n_on_host=machine.n_on_host)
    written = disk(shape, setting, n_candidates=N_CANDIDATES)
    shared = {"n_processes": n, "n_on_host": machine.n_on_host}
    took_s = seconds(run, strategy, peak=card.peak_flops, mfu=mfu, **shared)
    return (
        f"| {name} | {where} | {strategy} | {(needed.device + OVERHEAD_BYTES) / GIB:.0f} of "
        f"{card.memory_bytes / GIB:.0f} | {needed.host / GIB:.0f} | {written.candidates / 1e9:.0f} + "
        f"{written.state / 1e9:.0f} | {took_s / 60:.0f} | {took_s / 3600 * n * price:.0f} |"
    )


def main(mfu: float, price: float, tokens: int, rank: int) -> None:
    """Print the table."""
    shapes = dict(LLAMA)
    if Path("models/base").is_dir():
        shapes["models/base"] = read_shape(Path("models/base"))
    print(
        f"15 epochs over {len(LIMA_LENGTHS):,} examples of {sum(LIMA_LENGTHS):,} tokens, six candidates, bf16, AdamW, "
        f"{tokens:,} tokens a forward pass, gradient checkpointing, LoRA of rank {rank}, "
        f"{mfu:.0%} of the peak, {price} dollars a card-hour"
        "\n"
    )
    print("| model | machine | strategy | GiB a card | GiB a host | disk, GB: candidates + state | minutes | dollars |")
    print("|---|---|---|---|---|---|---|---|")
    setting = Setting(is_bf16=True, micro_batch_tokens=tokens, gradient_checkpointing=True)
    for name, shape in shapes.items():
        for method, chosen in (("", setting), (", LoRA", setting._replace(rank=rank))):
            run = lima(shape, chosen, batch=BATCH_65B if name == "LLaMA 65B" else BATCH)
            for machine in MACHINES:
                print(row(name + method, run, machine, mfu=mfu, price=price))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mfu", type=float, default=MFU, help=f"share of the peak that is reached ({MFU})")
    parser.add_argument("--price", type=float, default=3.0, help="dollars for an hour of one card (3)")
    parser.add_argument("--tokens", type=int, default=4096, help="of a forward pass (4096)")
    parser.add_argument("--rank", type=int, default=32, help="of LoRA (32)")
    arguments = parser.parse_args()
    raise SystemExit(run_command(lambda: main(arguments.mfu, arguments.price, arguments.tokens, arguments.rank)))
