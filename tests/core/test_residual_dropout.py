import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from stages.core.residual_dropout import add_residual_dropout, dropout_rates


def model(n_layers=3):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=n_layers, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


def test_rates_rise_linearly_to_the_papers_last_layer():
    rates = dropout_rates(0.3, 80)
    assert rates[0] == 0
    assert rates[-1] == 0.3
    assert rates[40] == pytest.approx(0.3 * 40 / 79)


def test_a_single_layer_gets_the_last_rate():
    assert dropout_rates(0.2, 1) == [0.2]


def test_rate_zero_changes_nothing():
    plain, wrapped = model(), model()
    add_residual_dropout(wrapped, p_last=0.0)
    ids = torch.arange(8)[None]
    assert torch.equal(plain.train()(ids).logits, wrapped.train()(ids).logits)


def test_it_drops_while_training_and_not_in_eval():
    plain, wrapped = model(), model()
    add_residual_dropout(wrapped, p_last=0.5)
    ids = torch.arange(8)[None]
    assert not torch.equal(wrapped.train()(ids).logits, wrapped.train()(ids).logits)
    assert torch.equal(plain.eval()(ids).logits, wrapped.eval()(ids).logits)


def test_what_is_dropped_is_the_block_output_before_the_residual_add():
    wrapped = model(n_layers=1)
    add_residual_dropout(wrapped, p_last=0.5)
    seen = {}
    wrapped.model.layers[0].mlp.register_forward_hook(lambda _m, _i, out: seen.setdefault("mlp", out))
    wrapped.train()(torch.arange(8)[None])
    share = (seen["mlp"] == 0).float().mean().item()
    assert 0.3 < share < 0.7
    assert torch.isfinite(seen["mlp"]).all()


def test_kept_elements_are_scaled_so_that_the_mean_stays():
    wrapped = model(n_layers=1)
    mlp = wrapped.model.layers[0].mlp
    hidden = torch.randn(1, 8, 16)
    plain = mlp(hidden).detach()
    add_residual_dropout(wrapped, p_last=0.5)
    dropped = mlp.train()(hidden).detach()
    kept = dropped != 0
    assert torch.allclose(dropped[kept], plain[kept] * 2)


def test_blocks_of_another_form_are_refused_by_name():
    with pytest.raises(ValueError, match="Linear"):
        add_residual_dropout(nn.Linear(2, 2), p_last=0.1)
