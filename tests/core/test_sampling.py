import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from stages.core.sampling import Decoding, choose_token


def decoding(**changes):
    values = {
        "seed": 0,
        "temperature": 0.7,
        "top_p": 0.9,
        "repetition_penalty": 1.0,
        "max_new_tokens": 8,
        "n_samples": 1,
        "batch_size": 4,
    }
    return Decoding(**{**values, **changes})


def frequencies(logits, *, text=(), n=4000, **changes):
    stream = np.random.default_rng(0)
    chosen = [choose_token(logits, text, stream, decoding=decoding(**changes)) for _ in range(n)]
    return np.bincount(chosen, minlength=len(logits)) / n


def transformers_probabilities(logits, *, text=(), temperature, top_p, repetition_penalty=1.0):
    scores = torch.tensor(logits)[None]
    if repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(repetition_penalty)(torch.tensor([list(text)]), scores)
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    return TopPLogitsWarper(top_p)(None, scores).softmax(-1)[0].numpy()


def test_greedy_takes_the_most_likely_and_draws_nothing():
    stream = np.random.default_rng(0)
    before = stream.bit_generator.state
    assert choose_token(np.array([0.0, 3.0, 1.0]), [], stream, decoding=decoding(temperature=0.0)) == 1
    assert stream.bit_generator.state == before


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert frequencies(logits, temperature=1.0, top_p=0.5).tolist() == [1, 0, 0, 0]
    assert (frequencies(logits, temperature=1.0, top_p=0.79) > 0).tolist() == [True, True, False, False]
    assert (frequencies(logits, temperature=1.0, top_p=0.81) > 0).tolist() == [True, True, True, False]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    logits = np.array([2.0, 1.9, -1.0])
    greedy = decoding(temperature=0.0, repetition_penalty=1.2)
    stream = np.random.default_rng(0)
    assert choose_token(logits, [0], stream, decoding=greedy) == 1
    assert choose_token(np.array([-1.0, -1.1]), [0], stream, decoding=greedy) == 1
    assert logits.tolist() == [2.0, 1.9, -1.0]


@pytest.mark.parametrize("text", [[], [0, 3, 3]])
def test_shares_are_those_of_transformers(text):
    logits = np.random.default_rng(1).normal(size=12) * 2
    settings = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2 if text else 1.0}
    expected = transformers_probabilities(logits, text=text, **settings)
    assert np.abs(frequencies(logits, text=text, n=20000, **settings) - expected).max() < 0.015


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=20), st.floats(0.1, 2), st.floats(0.01, 1), st.integers(0, 99))
def test_a_token_of_the_vocabulary_is_always_chosen(logits, temperature, top_p, seed):
    chosen = choose_token(
        np.array(logits), [0], np.random.default_rng(seed), decoding=decoding(temperature=temperature, top_p=top_p)
    )
    assert 0 <= chosen < len(logits)
