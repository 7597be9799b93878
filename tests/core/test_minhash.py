from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.core.minhash import MinHashing, Sketch, _permutations, jaccard, near_duplicates, signatures, sketch
from stages.core.words import hash_grams, hash_words, normalise


def config(**changes: object) -> MinHashing:
    plain = {"seed": 1, "shingle_words": 3, "n_permutations": 128, "n_bands": 32, "min_jaccard": 0.8, "short_words": 6}
    return MinHashing.model_validate({**plain, **changes})


def similar_texts(*, seed: int, n: int, n_words: int = 60) -> list[str]:
    """Texts of a small vocabulary, most of them edits of one before."""
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(40)]
    made: list[list[str]] = []
    for _ in range(n):
        if made and rng.random() < 0.7:
            words = list(rng.choice(made))
            for _ in range(rng.randrange(8)):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
            words = words[: rng.randrange(len(words) - 8, len(words) + 1)]
        else:
            words = rng.choices(vocabulary, k=rng.randrange(n_words - 20, n_words))
        made.append(words)
    return [" ".join(words) for words in made]


def shingles_of(text: str, n: int) -> set[tuple[str, ...]]:
    words = normalise(text).split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def plain_jaccard(a: str, b: str, n: int) -> float:
    first, second = shingles_of(a, n), shingles_of(b, n)
    return len(first & second) / len(first | second)


@pytest.mark.parametrize(("seed", "n_permutations"), [(1, 128), (7, 16)])
def test_signatures_are_those_of_datasketch(seed: int, n_permutations: int) -> None:
    settings_ = config(seed=seed, n_permutations=n_permutations, n_bands=n_permutations)
    texts = ["", "too few", *similar_texts(seed=3, n=40)]
    shingles, offsets = hash_grams(hash_words(texts), 3)
    found = signatures(shingles, offsets, _permutations(settings_))
    for i in range(len(texts)):
        theirs = MinHash(n_permutations, seed, hashfunc=int)
        theirs.update_batch(shingles[offsets[i] : offsets[i + 1]].astype(np.uint32).tolist())
        assert found[i].tolist() == theirs.hashvalues.tolist()
    assert found.dtype == np.uint32


def test_signatures_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = similar_texts(seed=4, n=30)
    arguments = (*hash_grams(hash_words(texts), 3), _permutations(config()))
    whole = signatures(*arguments)
    monkeypatch.setattr("stages.core.minhash._BLOCK", 100)
    assert (signatures(*arguments) == whole).all()


def walk(texts: list[str], settings_: MinHashing) -> tuple[list[tuple[int, int, float]], Sketch]:
    series = pl.Series(texts, dtype=pl.String)
    found = sketch(series, settings_)
    return [tuple(match) for match in near_duplicates(series, found, settings_)], found  # type: ignore[misc]


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
    found, _ = walk(texts, config())
    assert len(found) > 10
    assert found == slow_walk(texts, config())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_kept_rows_lie_below_the_threshold_and_partners_are_kept(seed: int) -> None:
    # 128 bands of one row: a pair of Jaccard .5 is missed with probability 2^-128
    settings_ = config(n_bands=128, min_jaccard=0.5)
    texts = similar_texts(seed=seed, n=40)
    found, _ = walk(texts, settings_)
    dropped = {row for row, _, _ in found}
    kept = [i for i in range(len(texts)) if i not in dropped]
    assert all(plain_jaccard(texts[i], texts[j], 3) < 0.5 for i in kept for j in kept if i < j)
    for row, partner, value in found:
        assert partner in kept
        assert partner < row
        assert value == plain_jaccard(texts[row], texts[partner], 3) >= 0.5


def test_min_jaccard_is_inclusive() -> None:
    shared = " ".join(f"w{i}" for i in range(22))  # 20 shingles of 3
    longer = f"{shared} x y z v u"  # 25, so J = 20 / 25
    assert walk([longer, shared], config(n_bands=128))[0] == [(1, 0, 0.8)]
    assert walk([longer, shared], config(n_bands=128, min_jaccard=0.81))[0] == []


def test_chains_do_not_close() -> None:
    a = [f"w{i}" for i in range(30)]
    b = [*a[:-3], "x", "y", "z"]
    c = ["p", "q", "r", *b[3:]]
    texts = [" ".join(words) for words in (a, b, c)]
    settings_ = config(n_bands=128, min_jaccard=0.8)
    assert plain_jaccard(texts[1], texts[2], 3) >= 0.8 > plain_jaccard(texts[0], texts[2], 3)
    assert [match[:2] for match in walk(texts, settings_)[0]] == [(1, 0)]


def test_texts_that_differ_in_case_and_punctuation_are_equal() -> None:
    assert walk(["One two three four five six, seven.", "one TWO three four: five six seven"], config())[0] == [
        (1, 0, 1.0)
    ]


def test_a_text_of_short_words_words_is_long() -> None:
    six = "one two three four five six"  # 4 shingles of 3
    assert walk([f"{six} seven", six], config(n_bands=128))[0] == [(1, 0, 0.8)]


def test_short_texts_are_left_to_others() -> None:
    matches, found = walk(["one two three four five"] * 3, config())
    assert matches == []
    assert found.n_words.tolist() == [5, 5, 5]


@pytest.mark.parametrize("texts", [[], [""], ["one two three four five six"]])
def test_nothing_and_one_text_repeat_nothing(texts: list[str]) -> None:
    assert walk(texts, config())[0] == []


def test_a_thousand_equal_texts_have_one_partner() -> None:
    text = similar_texts(seed=1, n=1)[0]
    assert walk([text] * 1000, config())[0] == [(i, 0, 1.0) for i in range(1, 1000)]


def test_jaccard_of_sets() -> None:
    a, b = np.array([1, 2, 3], np.uint64), np.array([2, 3, 4, 5], np.uint64)
    assert jaccard(a, b) == 2 / 5
    assert jaccard(a, a) == 1.0
    assert jaccard(a, np.array([9], np.uint64)) == 0.0


@pytest.mark.parametrize(
    ("changes", "rule"),
    [({"n_bands": 48}, "divide n_permutations 128"), ({"short_words": 2}, "at least shingle_words 3")],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, int], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        config(**changes)
