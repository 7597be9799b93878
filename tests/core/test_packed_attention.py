"""Packed attention gives each example what it has alone, in every family."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from stages.core.packed_attention import NAME, Segments, attend, register
from stages.core.packed_loss import SupervisedLoss, n_chunks
from stages.core.packing import pack
from stages.core.residual_dropout import add_residual_dropout

TINY = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
WINDOWS = {"sliding_window": 3, "use_sliding_window": True}
FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": 3},
    "qwen2": {**WINDOWS, "max_window_layers": 1},
    "qwen3": {**WINDOWS, "max_window_layers": 1},
    "smollm3": {},
    "olmo": {},
    "olmo2": {},
    "gemma": {},
    "gemma2": {"sliding_window": 3, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 3, "query_pre_attn_scalar": 8},
    "granite": {"logits_scaling": 2.0},
}
IDS = [[1, 5, 6, 7, 8, 9, 11, 12], [1, 9], [1, 4, 4, 30, 31]]
MASKS = [[0, 0, 1, 1, 1, 0, 1, 1], [0, 1], [0, 0, 1, 1, 1]]


def tiny(family, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**TINY, **FAMILIES[family], **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    with torch.no_grad():  # weights of 0.02 hide what is wrong
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    return model


def gradients_of(model):
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


def padded(model):
    """Each example alone through the family's own attention, the sum of its losses by hand."""
    total = 0
    for ids, mask in zip(IDS, MASKS, strict=True):
        logp = model(torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)
        total = total - sum(logp[t - 1, ids[t]] for t in range(1, len(ids)) if mask[t])
    total.backward()
    return total.item(), gradients_of(model)


def packed(model, *, n_parts=1, p_last=0.0, checkpointing=False):
    register()
    streams = add_residual_dropout(model, p_last=p_last)
    model.set_attn_implementation(NAME)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    loss = SupervisedLoss(model, streams)(pack([0, 1, 2], IDS, MASKS), n_parts, (0, 1))
    loss.backward()
    return loss.item(), gradients_of(model)


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-4 * gradient.abs().max().item())


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_examples_have_the_loss_and_gradients_that_each_has_alone(family):
    assert_same(packed(tiny(family)), padded(tiny(family)))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("n_parts", [2, 4, 50])
def test_logits_in_chunks_change_nothing(family, n_parts):
    """50: more chunks than supervised tokens."""
    assert_same(packed(tiny(family), n_parts=n_parts), packed(tiny(family)))


@pytest.mark.parametrize("p_last", [0.0, 0.3])
def test_checkpointed_layers_change_nothing(p_last):
    plain, again = (packed(tiny("llama"), p_last=p_last, checkpointing=on) for on in (False, True))
    assert plain[0] == again[0]
    assert all(torch.equal(plain[1][name], again[1][name]) for name in plain[1])


def test_chunks_hold_a_bounded_number_of_logits():
    assert n_chunks(1000, 50, logits_bytes=200_000) == 1
    assert n_chunks(1001, 50, logits_bytes=200_000) == 2


def test_scores_with_terms_that_are_not_known_are_refused():
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="does not know s_aux of Linear"):
        attend(
            torch.nn.Linear(1, 1), states, states, states, None, segments=Segments([3], states.device), scaling=1.0,
            s_aux=torch.zeros(2),
        )  # fmt: skip
