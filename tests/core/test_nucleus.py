import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from stages.core.nucleus import choose_tokens


def choose(logits, *, text=(), uniform=0.5, temperature=0.7, top_p=0.9, repetition_penalty=1.0):
    return choose_all([logits], [text], [uniform], temperature, top_p, repetition_penalty)[0]


def choose_all(logits, texts, uniforms, temperature, top_p, repetition_penalty):
    scores = torch.tensor(np.array(logits), dtype=torch.float64)
    seen = torch.zeros_like(scores, dtype=torch.bool)
    for row, text in enumerate(texts):
        seen[row, list(text)] = True
    chosen = choose_tokens(
        scores,
        seen,
        torch.tensor(uniforms, dtype=torch.float64),
        temperature=temperature,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
    )
    return chosen.tolist()


def one_by_one(logits, text, uniform, temperature, top_p, repetition_penalty):
    """The rule for one row, whole vocabulary sorted: the specification."""
    logits = np.array(logits, dtype=np.float64)
    for token in set(text):
        logits[token] = logits[token] / repetition_penalty if logits[token] > 0 else logits[token] * repetition_penalty
    if temperature == 0:
        return int(np.argmax(logits))
    weights = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    cumulative = np.cumsum(weights[order])
    nucleus = int(np.searchsorted(cumulative, top_p * cumulative[-1])) + 1
    point = uniform * cumulative[min(nucleus, len(order)) - 1]
    return int(order[min(int(np.searchsorted(cumulative, point, side="right")), len(order) - 1)])


def frequencies(logits, *, n=20000, **settings):
    uniforms = np.random.default_rng(0).random(n)
    text = settings.pop("text", ())
    given = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.0, **settings}
    chosen = choose_all([logits] * n, [text] * n, uniforms, *given.values())
    return np.bincount(chosen, minlength=len(logits)) / n


def transformers_probabilities(logits, *, text, temperature, top_p, repetition_penalty):
    scores = torch.tensor(logits)[None]
    scores = RepetitionPenaltyLogitsProcessor(repetition_penalty)(torch.tensor([list(text)]), scores)
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    return TopPLogitsWarper(top_p)(None, scores).softmax(-1)[0].numpy()


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert frequencies(logits, temperature=1.0, top_p=0.5).tolist() == [1, 0, 0, 0]
    assert (frequencies(logits, temperature=1.0, top_p=0.79) > 0).tolist() == [True, True, False, False]
    assert (frequencies(logits, temperature=1.0, top_p=0.81) > 0).tolist() == [True, True, True, False]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    assert choose([2.0, 1.9, -1.0], text=[0], temperature=0, repetition_penalty=1.2) == 1
    assert choose([2.0, 1.6, -1.0], text=[0], temperature=0, repetition_penalty=1.2) == 0
    assert choose([-1.0, -1.1], text=[0], temperature=0, repetition_penalty=1.2) == 1


def test_a_token_is_penalised_once_however_often_the_text_holds_it():
    assert choose([2.0, 1.6], text=[0, 0, 0, 0], temperature=0, repetition_penalty=1.2) == 0


@pytest.mark.parametrize("text", [[0, 3, 3], [5], list(range(12))])
def test_shares_are_those_of_transformers(text):
    logits = np.random.default_rng(1).normal(size=12) * 2
    settings = {"text": text, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2}
    assert np.abs(frequencies(logits, **settings) - transformers_probabilities(logits, **settings)).max() < 0.015


def test_the_tokens_that_can_be_drawn_are_those_of_transformers_in_a_large_vocabulary():
    logits = np.random.default_rng(2).normal(size=3000) * 2
    settings = {"text": [int(logits.argmax())], "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2}
    expected = np.flatnonzero(transformers_probabilities(logits, **settings))
    assert len(expected) > 64  # more than are looked at first
    drawn = [choose(logits, uniform=u, **settings) for u in (0.0, np.nextafter(1.0, 0.0))]
    found = np.flatnonzero(frequencies(logits, n=1000, **settings))
    assert set(found) <= set(expected)
    assert drawn[0] == np.argsort(-transformers_probabilities(logits, **settings), kind="stable")[0]
    assert drawn[1] == expected[np.argmin(transformers_probabilities(logits, **settings)[expected])]


@given(
    st.integers(1, 3),
    st.floats(0.1, 2),
    st.floats(0.01, 1),
    st.sampled_from([1.0, 1.2]),
    st.sampled_from([0.0, 0.5, 0.1, 1e-6]),
    st.integers(0, 2**32),
)
def test_each_row_is_chosen_as_if_it_were_alone_and_all_tokens_were_sorted(
    n_rows, temperature, top_p, penalty, coarseness, seed
):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n_rows, 200)) * 3
    if coarseness:
        logits = np.round(logits / coarseness) * coarseness  # ties are the rule
    texts = rng.integers(0, 200, size=(n_rows, 9)).tolist()
    uniforms = rng.random(n_rows).tolist()
    settings = (temperature, top_p, penalty)
    expected = [one_by_one(row, text, u, *settings) for row, text, u in zip(logits, texts, uniforms, strict=True)]
    assert choose_all(logits, texts, uniforms, *settings) == expected


def test_equal_tokens_stand_in_the_order_of_their_ids():
    logits = [0.0] * 500  # the nucleus is the first 250
    assert [choose(logits, uniform=u, temperature=1.0, top_p=0.5) for u in (0.0, 0.5, 0.999)] == [0, 125, 249]
