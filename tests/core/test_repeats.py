from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core import crowds
from stages.core.contamination import Contamination, guard_prompts
from stages.core.crowds import CROWDED
from stages.core.kernels import PLAIN, Kernels
from stages.core.known import blank_findings, index, read_batch, shingle_sets
from stages.core.minhash import MinHashing, least_agreement, shared_buckets
from stages.core.repeats import near_duplicates
from stages.core.words import U64, normalise
from stages.schema import MESSAGES
from tests.curation import turns
from tests.similar import plain_jaccard, similar_texts

NO_PROMPTS = guard_prompts(
    [], Contamination(ngram_words=8, min_containment=0.6, min_copied=0.85, min_copied_words=10, min_prompt_words=5)
)


def config(**changes: object) -> MinHashing:
    plain = {"seed": 1, "shingle_words": 3, "n_permutations": 128, "n_bands": 32, "min_jaccard": 0.8, "short_words": 6}
    return MinHashing.model_validate({**plain, **changes})


def walk(texts: list[str], settings_: MinHashing, kernels: Kernels = PLAIN) -> list[tuple[int, int, float]]:
    messages = pl.Series([turns("Why?", text) for text in texts], dtype=MESSAGES)
    known = index(blank_findings(0, settings_.n_permutations))
    found = read_batch(messages, known, NO_PROMPTS, settings_, PLAIN).findings
    long = np.flatnonzero(found.n_words >= settings_.short_words)
    buckets = shared_buckets(found.sketches, long, settings_.n_bands, least=least_agreement(settings_))
    shingles = shingle_sets(messages, buckets.rows, settings_, PLAIN)
    order = np.arange(len(buckets.rows))
    matches = near_duplicates(order, buckets, found.sketches, shingles.__getitem__, settings_, kernels)
    return [tuple(match) for match in matches]  # type: ignore[misc]


def slow_walk(texts: list[str], settings_: MinHashing) -> list[tuple[int, int, float]]:
    """The specification: each text against every kept one before it."""
    kept: list[int] = []
    matches = []
    for i, text in enumerate(texts):
        if len(normalise(text).split()) < settings_.short_words:
            continue
        values = [(plain_jaccard(text, texts[j], settings_.shingle_words), -j) for j in kept]
        value, partner = max(values, default=(0.0, 0))
        if value >= settings_.min_jaccard:
            matches.append((i, -partner, value))
        else:
            kept.append(i)
    return matches


@pytest.mark.parametrize("seed", range(6))
def test_the_walk_finds_what_brute_force_finds(seed: int) -> None:
    texts = similar_texts(seed=seed, n=150)
    found = walk(texts, config())
    assert len(found) > 10
    assert found == slow_walk(texts, config())


def templated_texts(seed: int, n: int, n_words: int) -> list[str]:
    """Texts of one template of 120 words, five of which are one of n_words each."""
    rng = random.Random(seed)
    texts = []
    for _ in range(n):
        words = [f"w{i}" for i in range(120)]
        words[10::25] = [f"v{rng.randrange(n_words)}" for _ in words[10::25]]
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("n_words", [3, 12, 10**6])
def test_the_walk_through_an_over_full_bucket_finds_what_brute_force_finds(n_words: int) -> None:
    texts = templated_texts(seed=1, n=3 * CROWDED, n_words=n_words)
    for min_jaccard in (0.7, 0.78, 0.9):
        settings_ = config(n_bands=128, min_jaccard=min_jaccard)  # every two share a bucket
        assert walk(texts, settings_) == slow_walk(texts, settings_)


@pytest.mark.parametrize("seed", range(3))
def test_buckets_may_be_called_over_full_at_any_size(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = similar_texts(seed=seed, n=150)
    expected = walk(texts, config())
    for crowded in (1, 4):
        monkeypatch.setattr(crowds, "CROWDED", crowded)
        assert walk(texts, config()) == expected


def test_texts_of_one_template_are_not_compared_each_with_each() -> None:
    texts = templated_texts(seed=1, n=800, n_words=10**9)
    assert 0.7 < plain_jaccard(texts[0], texts[1], 3) < 0.8
    n_compared = 0

    def jaccard(a: U64, b: U64) -> float:
        nonlocal n_compared
        n_compared += 1
        return PLAIN.jaccard(a, b)

    assert walk(texts, config(), PLAIN._replace(jaccard=jaccard)) == []
    assert n_compared < 10 * len(texts)  # each with each: 319,600


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_kept_rows_lie_below_the_threshold_and_partners_are_kept(seed: int) -> None:
    # 128 bands of one row: a pair of Jaccard .5 is missed with probability 2^-128
    settings_ = config(n_bands=128, min_jaccard=0.5)
    texts = similar_texts(seed=seed, n=40)
    found = walk(texts, settings_)
    dropped = {row for row, _, _ in found}
    long = [i for i in range(len(texts)) if len(texts[i].split()) >= settings_.short_words]
    kept = [i for i in long if i not in dropped]
    assert all(plain_jaccard(texts[i], texts[j], 3) < 0.5 for i in kept for j in kept if i < j)
    for row, partner, value in found:
        assert partner in kept
        assert partner < row
        assert value == plain_jaccard(texts[row], texts[partner], 3) >= 0.5


def test_min_jaccard_is_inclusive() -> None:
    shared = " ".join(f"w{i}" for i in range(22))  # 20 shingles of 3
    longer = f"{shared} x y z v u"  # 25, so J = 20 / 25
    assert walk([longer, shared], config(n_bands=128)) == [(1, 0, 0.8)]
    assert walk([longer, shared], config(n_bands=128, min_jaccard=0.81)) == []


def test_chains_do_not_close() -> None:
    a = [f"w{i}" for i in range(30)]
    b = [*a[:-3], "x", "y", "z"]
    c = ["p", "q", "r", *b[3:]]
    texts = [" ".join(words) for words in (a, b, c)]
    settings_ = config(n_bands=128, min_jaccard=0.8)
    assert plain_jaccard(texts[1], texts[2], 3) >= 0.8 > plain_jaccard(texts[0], texts[2], 3)
    assert [match[:2] for match in walk(texts, settings_)] == [(1, 0)]


def test_texts_that_differ_in_case_and_punctuation_are_equal() -> None:
    assert walk(["One two three four five six, seven.", "one TWO three four: five six seven"], config()) == [
        (1, 0, 1.0)
    ]


def test_a_text_of_short_words_words_is_long() -> None:
    six = "one two three four five six"  # 4 shingles of 3
    assert walk([f"{six} seven", six], config(n_bands=128)) == [(1, 0, 0.8)]


def test_short_texts_are_left_to_others() -> None:
    assert walk(["one two three four five"] * 3, config()) == []


@pytest.mark.parametrize("texts", [[], [""], ["one two three four five six"]])
def test_nothing_and_one_text_repeat_nothing(texts: list[str]) -> None:
    assert walk(texts, config()) == []


def test_a_thousand_equal_texts_have_one_partner() -> None:
    text = similar_texts(seed=1, n=1)[0]
    assert walk([text] * 1000, config()) == [(i, 0, 1.0) for i in range(1, 1000)]
