from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.core.contamination import Contamination, guard_prompts
from stages.core.dialogues import take_apart
from stages.core.kernels import PLAIN, Kernels, compiled_kernels
from stages.core.known import Findings, Reading, blank_findings, digest_rows, index, read_batch, shingle_sets
from stages.core.minhash import MinHashing
from stages.core.words import Words
from stages.schema import MESSAGES
from tests.curation import turns

LIMITS = Contamination(ngram_words=8, min_containment=0.6, min_copied=0.85, min_copied_words=10, min_prompt_words=5)
PROMPT = "In which town was Ada Marsh born?"
GUARD = guard_prompts([PROMPT], LIMITS)
CONFIG = MinHashing(seed=1, shingle_words=3, n_permutations=16, n_bands=4, min_jaccard=0.8, short_words=6)
DIALOGUES = [
    turns("Why?", "one two three four five six seven"),
    turns(PROMPT, "one two three four five six eight"),
    turns("Short?", "two words"),
]


def series(*dialogues: list[dict[str, str]]) -> pl.Series:
    return pl.Series(dialogues, dtype=MESSAGES)


def read(messages: pl.Series, known: Findings | None = None, kernels: Kernels = PLAIN) -> Reading:
    return read_batch(messages, index(known or blank_findings(0, 16)), GUARD, CONFIG, kernels)


def counting(read_texts: list[bytes]) -> Kernels:
    """Kernels that note the texts they are given."""

    def hash_words(texts: Any) -> Words:
        read_texts.extend(texts)
        return PLAIN.hash_words(texts)

    return PLAIN._replace(hash_words=hash_words)


def same(a: Findings, b: Findings) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_batch_is_read_alike_by_both_kernels_and_however_it_is_cut() -> None:
    whole = read(series(*DIALOGUES))
    assert same(whole.findings, read(series(*DIALOGUES), kernels=compiled_kernels()).findings)
    for i, dialogue in enumerate(DIALOGUES):
        assert same(read(series(dialogue)).findings, whole.findings.take(np.array([i])))
    assert whole.findings.n_words.tolist() == [7, 7, 2]
    assert whole.findings.is_clean.tolist() == [True, False, True]
    assert [(leak.row, leak.rule) for leak in whole.leaks] == [(1, "same_prompt")]
    assert (whole.short.tolist(), whole.n_sketched) == ([2], 3)


def test_what_is_known_and_clean_is_not_read_again() -> None:
    known = read(series(*DIALOGUES)).findings
    texts: list[bytes] = []
    new = turns("New?", "one two three four five six nine")
    again = read(series(*DIALOGUES, new), known, counting(texts))
    assert b"New?" in texts
    assert b"Why?" not in texts
    assert again.n_sketched == 1
    assert same(again.findings.take(np.arange(3)), known)
    assert same(again.findings, read(series(*DIALOGUES, new)).findings)
    assert [leak.row for leak in again.leaks] == [1]


def test_a_row_is_searched_again_where_it_is_not_said_to_be_clean() -> None:
    known = read(series(*DIALOGUES)).findings._replace(is_clean=np.zeros(3, np.bool_))
    again = read(series(*DIALOGUES), known)
    assert again.n_sketched == 0
    assert [leak.row for leak in again.leaks] == [1]
    assert again.findings.is_clean.tolist() == [True, False, True]


def test_an_equal_half_of_a_digest_is_not_enough() -> None:
    known = read(series(DIALOGUES[0])).findings
    other = known.digests.copy()
    other[0, 1] ^= np.uint64(1)
    assert index(known).find(known.digests).tolist() == [0]
    assert index(known).find(other).tolist() == [-1]
    assert index(blank_findings(0, 16)).find(other).tolist() == [-1]


@pytest.mark.parametrize(
    "other",
    [
        turns("a", "bc"),
        turns("a", "b", "c"),
        [{"role": "assistant", "content": "ab"}, {"role": "user", "content": "c"}],
        turns("ab,", "c"),
        turns("ab", "c "),
        [],
    ],
)
def test_digests_tell_who_says_what(other: list[dict[str, str]]) -> None:
    first, second, third = digest_rows(take_apart(series(turns("ab", "c"), other, turns("ab", "c")))).tolist()
    assert first == third != second


def test_shingle_sets_are_sorted_and_distinct_and_of_the_rows_asked_for() -> None:
    repeats = turns("Why?", "a b c a b c a b")
    (found,) = shingle_sets(series(DIALOGUES[0], repeats), np.array([1]), CONFIG, PLAIN)
    assert len(found) == 3  # a b c, b c a, c a b
    assert (np.diff(found.astype(object)) > 0).all()


@pytest.mark.parametrize("prompt", ["short", "Short", "SHORT?!"])
def test_short_keys_are_equal_where_prompt_and_response_are(prompt: str) -> None:
    keys = read(
        series(turns(prompt, "Two WORDS."), turns("Short?", "two words"), turns("Other?", "two words"))
    ).short_keys
    assert keys[0] == keys[1] != keys[2]
