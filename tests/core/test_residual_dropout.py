import copy

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from stages.core.packed_loss import SupervisedLoss
from stages.core.residual_dropout import Streams, add_residual_dropout, dropout_rates


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


def watch(module, outputs, name):
    def hook(_module, _inputs, output):
        outputs[name] = output[0] if isinstance(output, tuple) else output

    module.register_forward_hook(hook)


def drawn(wrapped, streams, *, step=1, examples=(0,), lengths=(8,)):
    streams.begin(seed=0, step=step, examples=examples, lengths=lengths)
    return wrapped.train()(1 + torch.arange(8)[None]).logits


def test_it_drops_while_training_and_not_in_eval():
    plain, wrapped = model(), model()
    streams = add_residual_dropout(wrapped, p_last=0.5)
    ids = 1 + torch.arange(8)[None]
    assert not torch.equal(drawn(wrapped, streams), plain(ids).logits)
    assert torch.equal(plain.eval()(ids).logits, wrapped.eval()(ids).logits)


def test_what_is_dropped_follows_from_seed_step_and_example_alone():
    wrapped = model()
    streams = add_residual_dropout(wrapped, p_last=0.5)
    first = drawn(wrapped, streams)
    torch.rand(1)
    assert torch.equal(drawn(wrapped, streams), first)
    assert not torch.equal(drawn(wrapped, streams, step=2), first)
    assert not torch.equal(drawn(wrapped, streams, examples=(1,)), first)
    copied = copy.deepcopy(SupervisedLoss(wrapped, streams))
    assert torch.equal(drawn(copied.model, copied.streams), first)
    assert copied.streams is not streams


def test_an_example_loses_the_same_elements_wherever_it_lies_in_a_row():
    hidden = torch.ones(1, 7, 16)
    streams = Streams()
    streams.begin(seed=0, step=3, examples=(4, 9), lengths=(5, 2))
    both = streams.uniform(hidden, 6)
    streams.begin(seed=0, step=3, examples=(9,), lengths=(2,))
    assert torch.equal(streams.uniform(hidden[:, :2], 6), both[:, 5:])


def test_the_share_of_zeros_in_each_layer_is_its_rate():
    """n elements a layer: five standard deviations on either side."""
    wrapped = model(n_layers=4)
    streams = add_residual_dropout(wrapped, p_last=0.3)
    outputs = {}
    for i, layer in enumerate(wrapped.model.layers):
        watch(layer.mlp, outputs, ("mlp", i))
        watch(layer.self_attn, outputs, ("attention", i))
    ids = torch.arange(2000)[None] % 32
    streams.begin(seed=0, step=1, examples=(0, 1), lengths=(700, 1300))
    wrapped.train()(ids)
    for (_, i), output in outputs.items():
        rate = dropout_rates(0.3, 4)[i]
        spread = 5 * (rate * (1 - rate) / output.numel()) ** 0.5
        assert (output == 0).float().mean().item() == pytest.approx(rate, abs=spread)


def test_kept_elements_are_scaled_so_that_the_mean_stays():
    wrapped = model(n_layers=1)
    mlp = wrapped.model.layers[0].mlp
    hidden = torch.randn(1, 8, 16)
    plain = mlp(hidden).detach()
    streams = add_residual_dropout(wrapped, p_last=0.5)
    streams.begin(seed=0, step=1, examples=(0,), lengths=(8,))
    dropped = mlp.train()(hidden).detach()
    kept = dropped != 0
    assert torch.allclose(dropped[kept], plain[kept] * 2)


def test_where_a_block_normalises_what_it_adds_the_normalised_output_is_dropped():
    config = Gemma2Config(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    wrapped = Gemma2ForCausalLM(config)
    streams = add_residual_dropout(wrapped, p_last=0.5)
    layer, seen = wrapped.model.layers[0], {}
    for name in ("self_attn", "post_attention_layernorm", "mlp", "post_feedforward_layernorm"):
        watch(getattr(layer, name), seen, name)
    drawn(wrapped, streams)
    zeros = {name: (output == 0).float().mean().item() for name, output in seen.items()}
    assert zeros["self_attn"] == zeros["mlp"] == 0
    assert 0.3 < zeros["post_attention_layernorm"] < 0.7
    assert 0.3 < zeros["post_feedforward_layernorm"] < 0.7


def test_blocks_of_another_form_are_refused_by_name():
    with pytest.raises(ValueError, match="Linear"):
        add_residual_dropout(nn.Linear(2, 2), p_last=0.1)
