import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stages.core.decoding import decode_batch
from stages.core.sampling import Decoding

PROMPTS = [[1, 5, 6], [1, 7], [1, 8, 9, 10, 11], [1]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def decode(model, prompts, *, stop_ids=frozenset(), context_tokens=64, seeds=None, **changes):
    settings = {"seed": 0, "temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1, "max_new_tokens": 12}
    decoding = Decoding(**{**settings, "n_samples": 1, "batch_size": 4, **changes})
    streams = [np.random.default_rng(seed) for seed in (seeds or range(len(prompts)))]
    return decode_batch(
        model, prompts, streams, decoding=decoding, stop_ids=frozenset(stop_ids), context_tokens=context_tokens
    )


def without_cache(model, prompt, n):
    ids = list(prompt)
    for _ in range(n):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_answers_equal_those_without_cache_batch_or_padding(model):
    answers = decode(model, PROMPTS, temperature=0.0, repetition_penalty=1.0)
    assert [answer.ids for answer in answers] == [without_cache(model, prompt, 12) for prompt in PROMPTS]


def test_an_answer_does_not_depend_on_its_neighbours(model):
    together = decode(model, PROMPTS)
    alone = [decode(model, [prompt], seeds=[i])[0] for i, prompt in enumerate(PROMPTS)]
    assert together == alone


def test_a_stop_token_ends_an_answer_and_is_not_part_of_it_while_others_go_on(model):
    free = decode(model, PROMPTS, temperature=0.0, repetition_penalty=1.0)
    stop = free[0].ids[3]
    first = free[0].ids.index(stop)
    answers = decode(model, PROMPTS, temperature=0.0, repetition_penalty=1.0, stop_ids={stop})
    assert answers[0].ids == free[0].ids[:first]
    assert answers[0].stop_id == stop
    for answer, whole in zip(answers, free, strict=True):
        assert whole.ids[: len(answer.ids)] == answer.ids
        assert stop not in answer.ids


def test_an_answer_ends_where_the_models_positions_end(model):
    answers = decode(model, PROMPTS, context_tokens=5)
    assert [len(answer.ids) for answer in answers] == [2, 3, 0, 4]
    assert all(answer.stop_id is None for answer in answers)


def test_max_new_tokens_is_the_limit(model):
    assert {len(answer.ids) for answer in decode(model, PROMPTS, max_new_tokens=1)} == {1}
