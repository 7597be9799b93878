"""The paper plan, by its lines."""

import re

import pytest

from stages.core.training_cost import CARDS, GIB, Setting, flops
from stages.plan import LIMA_LENGTHS, LLAMA, MACHINES, Machine, lima, main, row

BF16 = Setting(is_bf16=True, micro_batch_tokens=4096, gradient_checkpointing=False)


def test_the_training_set_is_that_of_the_papers_table_1():
    assert len(LIMA_LENGTHS) == 1000
    assert 740_000 < sum(LIMA_LENGTHS) < 770_000


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_time_and_cost_by_hand():
    name, machine = "LLaMA 7B", MACHINES[2]
    run = lima(LLAMA[name], BF16, batch=64)
    hours = 15 * flops(LLAMA[name], LIMA_LENGTHS) / (8 * CARDS["H100"].peak_flops * 0.5) / 3600
    assert cells(row(name, run, machine, mfu=0.5, price=2.0))[-2:] == [f"{hours * 60:.0f}", f"{hours * 8 * 2:.0f}"]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        # N = 65.29e9. One of 8 cards: 2 N / 8 = 16.3, two blocks and both embeddings gathered 4.3, activations 13.1 and
        # logits 0.8 are 34.6e9 bytes, 2 GiB besides. A host: 20 N = 1,306e9. Disk: 6 x 2 N and 2 x 12 N.
        # 4.498e18 operations by 8 x 989.4e12 x 0.35 are 1,624 s; 480 steps of N / 8 x (240 / 150e9 + 6 / 25e9) = 15.0 s
        # are 7,208 s.
        (Machine("H200", 1, 8, 2000 * GIB), ["zero3-offload", "34 of 140", "1216", "783 + 1567", "147", "59"]),
        # A card of 16: 2 N / 16 = 8.2; a host half of it; half the time, twice the cards.
        (Machine("H100", 2, 8, 2000 * GIB), ["zero3-offload", "27 of 79", "608", "783 + 1567", "74", "59"]),
    ],
)
def test_the_papers_65b_by_hand(machine, expected):
    run = lima(LLAMA["LLaMA 65B"], BF16._replace(gradient_checkpointing=True), batch=32)
    assert run.n_steps == 480
    assert cells(row("LLaMA 65B", run, machine, mfu=0.35, price=3.0))[2:] == expected


def test_lora_takes_four_operations_a_weight_of_the_base():
    """Forward, and backward to the activations alone."""
    full, low = (
        float(cells(row("", lima(LLAMA["LLaMA 7B"], chosen, batch=64), MACHINES[1], mfu=0.001, price=1))[-1])
        for chosen in (BF16._replace(gradient_checkpointing=True), BF16._replace(gradient_checkpointing=True, rank=8))
    )
    assert low / full == pytest.approx(4 / 6, rel=0.03)


def test_what_does_not_fit_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(0.4, 3.0, 4096, 32)
    text = capsys.readouterr().out
    assert re.search(r"\| LLaMA 65B \| 1 x 1 x H200 \| does not fit \|", text)
    assert text.count("\n|") == 2 + 2 * len(LLAMA) * len(MACHINES)
    assert re.search(r"\| LLaMA 7B \| 1 x 1 x RTX 4090 \| does not fit \|", text)
    assert re.search(r"\| LLaMA 7B, LoRA \| 1 x 1 x RTX 4090 \| single \|", text)
