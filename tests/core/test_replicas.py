"""A batch shared out over threads has the gradients of the whole batch."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stages.core.replicas import Replicas

BATCH = torch.arange(5 * 8).reshape(5, 8) % 31


def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


def gradients(n_threads):
    own = model()
    with Replicas(own, n_threads) as replicas:
        loss = replicas.backward(BATCH)
    return loss, [parameter.grad for parameter in own.parameters()]


def plain():
    own = model()
    loss = own(input_ids=BATCH, labels=BATCH).loss
    loss.backward()
    return loss.item(), [parameter.grad for parameter in own.parameters()]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
def test_gradients_and_loss_are_those_of_the_whole_batch(n_threads):
    """Five rows do not split evenly over two or three threads: a mean of means would be wrong."""
    loss, found = gradients(n_threads)
    expected_loss, expected = plain()
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    torch.testing.assert_close(found, expected)


def test_the_same_number_of_threads_gives_the_same_bits():
    assert all(torch.equal(a, b) for a, b in zip(gradients(3)[1], gradients(3)[1], strict=True))


def test_a_step_of_the_optimizer_reaches_every_replica():
    own = model()
    with Replicas(own, 2) as replicas:
        replicas.backward(BATCH)
        torch.optim.SGD(own.parameters(), lr=0.1).step()
        first, second = (list(m.parameters()) for m in replicas.models)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_is_left_of_the_last_step():
    own = model()
    with Replicas(own, 2) as replicas:
        for _ in range(2):
            own.zero_grad(set_to_none=True)
            replicas.backward(BATCH)
    torch.testing.assert_close([parameter.grad for parameter in own.parameters()], plain()[1])
