"""The paper plan, by its lines."""

import re

import pytest

from stages.core.training_cost import CARDS, Setting, flops
from stages.plan import LIMA_LENGTHS, LLAMA, MACHINES, main, row

BF16 = Setting(is_bf16=True, micro_batch_tokens=4096, gradient_checkpointing=False)


def test_the_training_set_is_that_of_the_papers_table_1():
    assert len(LIMA_LENGTHS) == 1000
    assert 740_000 < sum(LIMA_LENGTHS) < 770_000


def test_time_and_cost_by_hand():
    name, machine = "LLaMA 7B", MACHINES[2]
    hours = 15 * flops(LLAMA[name], LIMA_LENGTHS) / (8 * CARDS["H100"].peak_flops * 0.5) / 3600
    cells = [cell.strip() for cell in row(name, LLAMA[name], machine, BF16, mfu=0.5, price=2.0).split("|")]
    assert cells[-3:-1] == [f"{hours * 60:.0f}", f"{hours * 8 * 2:.0f}"]


def test_lora_computes_again_a_pass_of_two():
    """Forward, and backward to the activations alone: checkpointing adds a half, not a third."""
    name, setting = "LLaMA 7B", BF16._replace(rank=32)
    plain, again = (
        float(row(name, LLAMA[name], MACHINES[2], chosen, mfu=0.001, price=1000).split("|")[-2])
        for chosen in (setting, setting._replace(gradient_checkpointing=True))
    )
    assert again == pytest.approx(1.5 * plain, rel=1e-3)


def test_what_does_not_fit_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(0.4, 3.0, 4096, 32)
    text = capsys.readouterr().out
    assert re.search(r"\| LLaMA 65B \| 1 x 1 x H200 \| does not fit \|", text)
    assert text.count("\n|") == 2 + 2 * len(LLAMA) * len(MACHINES)
    assert re.search(r"\| LLaMA 7B \| 1 x 1 x RTX 4090 \| does not fit \|", text)
    assert re.search(r"\| LLaMA 7B, LoRA \| 1 x 1 x RTX 4090 \| single \|", text)
