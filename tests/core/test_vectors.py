from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core import vectors
from stages.core.vectors import MAX_DIMENSIONS, N_DIMENSIONS, ONE, SCALE, fixed_point, similarities, tfidf

TEXTS = pl.Series(
    [
        "How do I sharpen a chisel? Use a stone, and keep the angle.",
        "how do i sharpen a CHISEL -- use a stone and keep the angle!",
        "Why is the sky blue? Short waves scatter more than long ones.",
        "",
        "Chisel, chisel, chisel: a stone.",
    ]
)


def exact_tfidf(texts: list[str]) -> np.ndarray:
    """The same weights with a column a word."""
    words = [vectors_words(text) for text in texts]
    vocabulary = sorted({word for found in words for word in found})
    tf = np.array([[found.count(word) for word in vocabulary] for found in words], dtype=float).reshape(len(texts), -1)
    df = (tf > 0).sum(axis=0)
    weights = np.where(tf > 0, 1 + np.log(np.maximum(tf, 1)), 0) * (1 + np.log((1 + len(texts)) / (1 + df)))
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    return weights / np.where(lengths > 0, lengths, 1)


def vectors_words(text: str) -> list[str]:
    from stages.core.words import normalise

    return normalise(text).split()


def test_cosines_are_those_of_plain_tfidf_up_to_the_error_of_hashing() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(400)]
    texts = [" ".join(rng.choice(vocabulary[start : start + 120], 60)) for start in rng.integers(0, 280, 80)]
    hashed = tfidf(pl.Series(texts)).astype(np.float64)
    plain = exact_tfidf(texts)
    error = (hashed @ hashed.T) / ONE - plain @ plain.T
    assert np.abs(error - np.diag(np.diag(error))).std() < 1.2 * N_DIMENSIONS**-0.5
    assert abs(error[np.triu_indices(80, 1)].mean()) < 0.01


def test_case_and_punctuation_do_not_count_and_no_words_are_a_zero() -> None:
    found = tfidf(TEXTS)
    assert np.array_equal(found[0], found[1])
    assert not found[3].any()
    assert found.dtype == np.float32
    cosine = similarities(found, found) / ONE
    assert cosine[0, 4] > cosine[0, 2] + 0.2


def test_no_texts_have_no_vectors() -> None:
    assert tfidf(pl.Series([], dtype=pl.String)).shape == (0, N_DIMENSIONS)


def test_vectors_do_not_depend_on_how_texts_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tfidf(TEXTS)
    monkeypatch.setattr("stages.core.vectors._CHUNK_BYTES", 1)
    assert np.array_equal(tfidf(TEXTS), whole)


def test_rare_words_weigh_more() -> None:
    texts = pl.Series(["oak common", "elm common", "ash common", "oak", "common"])
    cosine = similarities(tfidf(texts), tfidf(texts)) / ONE
    assert cosine[0, 3] > cosine[0, 4]


def test_frequencies_are_counted_in_evenly_spaced_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_N_COUNTED", 2)
    assert np.array_equal(tfidf(pl.Series(["a b", "c", "a", "d"]))[2], tfidf(pl.Series(["a b", "x", "a", "y"]))[2])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_products_are_exact_whole_numbers_in_any_order(n_dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = fixed_point(rng.standard_normal((7, n_dimensions)) ** 3)
    exact = found.astype(np.int64) @ found.astype(np.int64).T
    order = rng.permutation(n_dimensions)
    assert np.array_equal(similarities(found, found), exact)
    assert np.array_equal(similarities(found[:, order], found[:, order]), exact)
    assert (np.abs(found).astype(np.int64) @ np.abs(found).astype(np.int64).T).max() <= 2**24
    assert np.abs(np.diag(exact) / ONE - 1).max() < 0.01


def test_the_longest_vectors_are_exact_too() -> None:
    for numbers in (np.ones((1, MAX_DIMENSIONS)), np.linspace(-1, 1, MAX_DIMENSIONS)[None]):
        assert abs(np.linalg.norm(fixed_point(numbers).astype(np.float64)) - SCALE) <= 2**12 - SCALE
    with pytest.raises(AssertionError):
        fixed_point(np.ones((1, MAX_DIMENSIONS + 1)))
