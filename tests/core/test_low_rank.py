"""LoRA and the learned row, against the model that they are merged into."""

import copy

import pytest
import torch

from stages.core.low_rank import add_low_rank, merged
from tests.families import FAMILIES, tiny_model

TOKEN = 40
IDS = torch.tensor([[3, TOKEN, 7, 9, TOKEN, 11]])
NO_IDS = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))


def with_low_rank(name, *, seed=0, alpha=6, dtype=torch.float32, frozen=torch.float32):
    model = tiny_model(name, vocab_size=64, **NO_IDS).to(frozen).eval()
    plain = copy.deepcopy(model)
    add_low_rank(model, rank=3, alpha=alpha, token=TOKEN, seed=seed, dtype=dtype)
    return plain, model


def trained(model):
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def drawn(model):
    """As after some training."""
    generator = torch.Generator().manual_seed(1)
    for weight in trained(model).values():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_merged_model_computes_what_was_trained(name):
    plain, model = with_low_rank(name)
    torch.testing.assert_close(model(IDS).logits, plain(IDS).logits)
    drawn(model)
    weights = merged(model, model.state_dict())
    assert plain.state_dict().keys() - weights.keys() <= {"lm_head.weight"}, "the tied head's"
    plain.load_state_dict(weights, strict=False)
    learned = model(IDS).logits
    torch.testing.assert_close(plain(IDS).logits, learned, rtol=1e-4, atol=1e-4)
    plain.get_input_embeddings().weight.data[TOKEN] = 0
    assert not torch.allclose(plain(IDS).logits, learned, atol=1e-2)


@pytest.mark.parametrize(("name", "n_rows"), [("llama3", 2), ("qwen3", 1)])
def test_only_the_maps_of_the_blocks_and_a_row_learn(name, n_rows):
    _, model = with_low_rank(name)
    model(IDS).logits.logsumexp(-1).sum().backward()
    assert all(weight.grad is None for weight in model.parameters() if not weight.requires_grad)
    names = list(trained(model))
    assert sum("learned_row" in name for name in names) == n_rows
    assert sum("lora" in name for name in names) == 2 * 7 * model.config.num_hidden_layers
    assert not any("lm_head.lora" in name or "embed_tokens.lora" in name for name in names)
    for name, weight in trained(model).items():
        assert bool(weight.grad.abs().sum()) == ("lora_A" not in name), "A has no gradient while B is zero"


def test_a_map_becomes_its_sum_with_the_scaled_product_in_fp32():
    _, model = with_low_rank("llama3", alpha=6, frozen=torch.bfloat16)
    drawn(model)
    assert {weight.dtype for weight in trained(model).values()} == {torch.float32}
    state = model.state_dict()
    name = "model.layers.1.mlp.down_proj"
    product = state[f"{name}.lora_B.default.weight"] @ state[f"{name}.lora_A.default.weight"]
    expected = (state[f"{name}.base_layer.weight"].float() + 6 / 3 * product).bfloat16()
    assert torch.equal(merged(model, state)[f"{name}.weight"], expected)


def test_merging_changes_no_weight_of_the_model():
    _, model = with_low_rank("qwen3")
    drawn(model)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    merged(model, model.state_dict())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_model_without_it_is_given_back():
    plain, _ = with_low_rank("qwen3")
    weights = plain.state_dict()
    assert {name: id(weight) for name, weight in merged(plain, weights).items()} == {
        name: id(weight) for name, weight in weights.items()
    }


def test_the_matrices_follow_from_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        trained(with_low_rank("llama3", seed=seed)[1])["model.layers.0.mlp.up_proj.lora_A.default.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    model = tiny_model("llama3", vocab_size=64, **NO_IDS)
    torch.set_rng_state(before)
    add_low_rank(model, rank=3, alpha=6, token=TOKEN, seed=0, dtype=torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copy_learns_by_itself():
    _, model = with_low_rank("qwen3")
    twin = copy.deepcopy(model)
    drawn(twin)
    twin(IDS).logits.sum().backward()
    assert all(weight.grad is None for weight in model.parameters())
    assert not torch.allclose(model(IDS).logits, twin(IDS).logits)
