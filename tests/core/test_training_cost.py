"""The formulas, against real models and by hand."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from stages.core.low_rank import add_low_rank
from stages.core.training_cost import (
    CARDS,
    GIB,
    STRATEGIES,
    Setting,
    Shape,
    choose,
    disk,
    flops,
    memory,
    n_low_rank,
    peak_flops,
    shape_of,
)  # fmt: skip

LLAMA_7B = Shape(32, 4096, 11008, 32, 32, 128, 32000, tied=False)
LLAMA_65B = Shape(80, 8192, 22016, 64, 64, 128, 32000, tied=False)
BF16 = Setting(is_bf16=True, micro_batch_tokens=4096, gradient_checkpointing=True)


@pytest.mark.parametrize(("family", "exact"), [("llama", True), ("mistral", True), ("qwen3", False), ("gemma", True)])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_counted_as_the_library_does(family, exact, tied):
    config = AutoConfig.for_model(
        family, vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    counted = shape_of(config.to_dict()).n_weights
    if exact:
        assert counted == model.num_parameters()
    else:  # the norms of queries and keys are left out
        assert counted == pytest.approx(model.num_parameters(), rel=0.01)


def test_the_papers_models_have_their_weights():
    assert round(LLAMA_7B.n_weights / 1e9, 2) == 6.74
    assert round(LLAMA_65B.n_weights / 1e9, 1) == 65.3


def test_the_state_of_7b_fits_one_h200_and_not_one_h100():
    needed = memory(LLAMA_7B, BF16, "single", n_processes=1, n_on_host=1)
    assert needed.state == 18 * LLAMA_7B.n_weights
    hosts = {"n_processes": 1, "n_on_host": 1, "host_bytes": 100 * GIB}
    assert choose(LLAMA_7B, BF16, device_bytes=CARDS["H200"].memory_bytes, **hosts) == "single"
    assert choose(LLAMA_7B, BF16, device_bytes=CARDS["H100"].memory_bytes, **hosts) is None
    hosts["host_bytes"] = 256 * GIB
    assert choose(LLAMA_7B, BF16, device_bytes=CARDS["H100"].memory_bytes, **hosts) == "zero3-offload"


@pytest.mark.parametrize(
    ("card", "n", "tokens", "strategy"),
    [("H200", 8, 2048, "zero3-offload"), ("H100", 16, 4096, "zero3-offload"), ("H200", 16, 4096, "zero3")],
)
def test_65b_trains_sharded(card, n, tokens, strategy):
    """16 bytes a weight over eight H200 are 131 GB, which is all they have: the optimizer goes to host memory."""
    found = choose(
        LLAMA_65B, BF16._replace(micro_batch_tokens=tokens), n_processes=n, n_on_host=8,
        device_bytes=CARDS[card].memory_bytes, host_bytes=2000 * GIB,
    )  # fmt: skip
    assert found == strategy


def test_sharing_never_needs_more_state_and_checkpointing_never_more_activations():
    for strategy in STRATEGIES[2:]:
        states = [memory(LLAMA_7B, BF16, strategy, n_processes=n, n_on_host=n).state for n in (2, 4, 8)]
        assert states == sorted(states, reverse=True)
    kept = memory(LLAMA_7B, BF16._replace(gradient_checkpointing=False), "ddp", n_processes=8, n_on_host=8)
    assert kept.activations > 5 * memory(LLAMA_7B, BF16, "ddp", n_processes=8, n_on_host=8).activations


def test_flops_and_disk_by_hand():
    shape = Shape(n_layers=1, hidden_size=4, intermediate_size=8, n_heads=1, n_kv_heads=1, head_dim=4, vocab_size=10,
                  tied=False)  # fmt: skip
    assert shape.n_layer == 4 * 16 + 3 * 32 + 8
    assert shape.n_weights == 168 + 2 * 40 + 4
    assert flops(shape, [2, 3]) == 6 * (252 - 40) * 5 + 6 * 4 * (4 + 9)
    assert disk(shape, BF16, n_candidates=3) == (3 * 2 * 252, 2 * 12 * 252)


@pytest.mark.parametrize("tied", [True, False])
def test_what_lora_trains_is_counted_as_the_library_does(tied):
    config = AutoConfig.for_model(
        "qwen3", vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=tied,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    add_low_rank(model, rank=5, alpha=5, token=7, seed=0, dtype=torch.float32)
    counted = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert n_low_rank(shape_of(config.to_dict()), 5) == counted


def test_lora_of_7b_fits_a_card_of_24_gib_by_hand():
    """Two bytes a weight of the base; 18 of what is trained; the state on disk is that alone."""
    setting = BF16._replace(rank=32, micro_batch_tokens=2048)
    n = n_low_rank(LLAMA_7B, 32)
    assert n == 32 * 32 * (8 * 4096 + 3 * (4096 + 11008)) + 2 * 4096
    needed = memory(LLAMA_7B, setting, "single", n_processes=1, n_on_host=1)
    assert needed.state == 2 * LLAMA_7B.n_weights + 18 * n
    assert needed.logits == 4 * 4 * 2048 * 32000
    card = {"device_bytes": CARDS["RTX 4090"].memory_bytes, "host_bytes": 64 * GIB}
    assert choose(LLAMA_7B, setting, n_processes=1, n_on_host=1, **card) == "single"
    assert choose(LLAMA_7B, setting._replace(rank=None), n_processes=1, n_on_host=1, **card) is None
    assert disk(LLAMA_7B, setting, n_candidates=2) == (2 * 2 * LLAMA_7B.n_weights, 2 * 12 * n)
    rest = LLAMA_7B.n_weights - LLAMA_7B.n_embedding
    assert flops(LLAMA_7B, [1], rank=32) == 4 * rest + 6 * n + 6 * 32 * 4096


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lora_needs_less_everywhere(strategy):
    full, lora = (
        memory(LLAMA_7B, BF16._replace(rank=rank), strategy, n_processes=4, n_on_host=4) for rank in (None, 32)
    )
    assert lora.state < full.state
    assert lora.host <= full.host


def test_cards_are_known_by_the_names_that_drivers_give():
    names = {
        "NVIDIA H200": 989.4e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA L4": 121e12,
        "NVIDIA GeForce RTX 4090": 165.2e12, "NVIDIA B200": 2250e12, "NVIDIA L40S": None,
    }  # fmt: skip
    assert {name: peak_flops(name) for name in names} == names
