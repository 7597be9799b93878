from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    RepetitionPenaltyLogitsProcessor,
)

from stages.core.decoding import Answer, Job, decode
from stages.core.sampling import Decoding

PROMPTS = [[1, 5, 6], [1, 7], [1, 8, 9, 10, 11], [1]]
SIZES = {
    "vocab_size": 24,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.5,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def decoding(**changes):
    settings = {"seed": 0, "temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1, "max_new_tokens": 12}
    return Decoding(**{**settings, "n_samples": 1, "precision": "fp32", "batch_size": 4, **changes})


def answers_of(model, prompts, *, stop_ids=(), context_tokens=64, entropies=None, **changes):
    jobs = [Job(prompt, seed) for prompt, seed in zip(prompts, entropies or range(len(prompts)), strict=True)]
    given = list(
        decode(model, jobs, decoding=decoding(**changes), stop_ids=frozenset(stop_ids), context_tokens=context_tokens)
    )
    assert sorted(place for place, _ in given) == list(range(len(prompts)))
    return [answer for _, answer in sorted(given)]


def without_cache(model, prompt, n, *, penalty=1.0):
    penalise = RepetitionPenaltyLogitsProcessor(penalty)
    ids = list(prompt)
    for _ in range(n):
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[:, -1]
        ids.append(int(penalise(torch.tensor([ids]), logits)[0].argmax()))
    return ids[len(prompt) :]


def many(n, *, seed=0):
    rng = np.random.default_rng(seed)
    return [[1, *rng.integers(3, 24, size=rng.integers(0, 20)).tolist()] for _ in range(n)]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_greedy_answers_equal_those_without_cache_batch_or_padding(model, batch_size):
    answers = answers_of(model, PROMPTS, temperature=0.0, repetition_penalty=1.0, batch_size=batch_size)
    assert [answer.ids for answer in answers] == [without_cache(model, prompt, 12) for prompt in PROMPTS]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_penalty_is_over_prompt_and_answer_as_in_transformers(model, batch_size):
    answers = answers_of(model, PROMPTS, temperature=0.0, repetition_penalty=1.5, batch_size=batch_size)
    expected = [without_cache(model, prompt, 12, penalty=1.5) for prompt in PROMPTS]
    assert [answer.ids for answer in answers] == expected
    assert expected != [without_cache(model, prompt, 12) for prompt in PROMPTS]


def test_answers_of_a_model_with_a_sliding_window_equal_those_without_cache():
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=5)).eval()
    prompts = many(6)
    answers = answers_of(model, prompts, temperature=0.0, repetition_penalty=1.0)
    assert [answer.ids for answer in answers] == [without_cache(model, prompt, 12) for prompt in prompts]


def test_an_answer_depends_on_neither_batch_nor_order_nor_neighbours(model):
    prompts = many(40)
    stop_ids = {3, 4}  # answers of many lengths, so that rows leave and enter all the time
    together = answers_of(model, prompts, stop_ids=stop_ids)
    assert {answer.stop_id for answer in together} == {3, 4, None}
    alone = [answers_of(model, [prompt], stop_ids=stop_ids, entropies=[i])[0] for i, prompt in enumerate(prompts)]
    assert together == alone
    for batch_size in (1, 3, 7, 100):
        assert answers_of(model, prompts, stop_ids=stop_ids, batch_size=batch_size) == together
    rng = np.random.default_rng(0)
    for n in (40, 25, 9):
        some = rng.permutation(40)[:n].tolist()
        answers = answers_of(model, [prompts[i] for i in some], stop_ids=stop_ids, entropies=some)
        assert answers == [together[i] for i in some]


def test_a_stop_token_ends_an_answer_and_is_not_part_of_it_while_others_go_on(model):
    free = answers_of(model, PROMPTS, temperature=0.0, repetition_penalty=1.0)
    stop = free[0].ids[3]
    first = free[0].ids.index(stop)
    answers = answers_of(model, PROMPTS, temperature=0.0, repetition_penalty=1.0, stop_ids={stop})
    assert answers[0] == Answer(free[0].ids[:first], stop)
    for answer, whole in zip(answers, free, strict=True):
        assert whole.ids[: len(answer.ids)] == answer.ids
        assert stop not in answer.ids


def test_an_answer_ends_where_the_models_positions_end(model):
    answers = answers_of(model, PROMPTS, context_tokens=5)
    assert [len(answer.ids) for answer in answers] == [2, 3, 0, 4]
    assert all(answer.stop_id is None for answer in answers)


def test_max_new_tokens_is_the_limit(model):
    assert {len(answer.ids) for answer in answers_of(model, PROMPTS, max_new_tokens=1)} == {1}


def test_no_jobs_no_answers(model):
    assert answers_of(model, []) == []


class Counting(LlamaForCausalLM):
    """Counts the rows of each pass, and runs out of memory above a number of them."""

    most = 1000

    def forward(self, input_ids, **rest):
        self.rows = [*getattr(self, "rows", []), len(input_ids)]
        if len(input_ids) > self.most:
            raise torch.OutOfMemoryError("no memory left")
        return super().forward(input_ids, **rest)


@pytest.fixture
def counting():
    torch.manual_seed(0)
    return Counting(LlamaConfig(**SIZES)).eval()


def test_waiting_prompts_take_the_places_of_answers_that_ended(counting):
    prompts = many(40)
    answers = answers_of(counting, prompts, stop_ids={3, 4, 5}, batch_size=8)
    n_tokens = sum(len(answer.ids) + (answer.stop_id is not None) for answer in answers)
    assert sum(counting.rows) == n_tokens  # no row is read that nobody waits for
    assert max(counting.rows) == 8
    whole_batches = [max(len(a.ids) + 1 for a in answers[i : i + 8]) for i in range(0, 40, 8)]
    assert n_tokens / len(counting.rows) > 1.2 * n_tokens / sum(whole_batches)  # fuller than batch by batch


def test_where_caches_cannot_be_joined_a_batch_is_finished_first(counting, model):
    counting._is_stateful = True  # as transformers marks models whose state is no cache of keys and values
    prompts = many(20)
    answers = answers_of(counting, prompts, stop_ids={3, 4, 5}, batch_size=8)
    assert answers == answers_of(model, prompts, stop_ids={3, 4, 5})
    rises = [b for a, b in pairwise(counting.rows) if b > a]
    assert rises in ([8, 4], [8])  # the rows only grow where a batch begins


def test_without_memory_the_batch_is_halved_and_the_answers_stay(counting, model):
    counting.most = 3
    prompts = many(20)
    assert answers_of(counting, prompts, stop_ids={3, 4}, batch_size=16) == answers_of(model, prompts, stop_ids={3, 4})
    assert max(counting.rows[-10:]) <= 3


def test_one_answer_that_does_not_fit_is_an_error(counting):
    counting.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        answers_of(counting, PROMPTS)
