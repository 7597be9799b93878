"""contamination: find rows that give away a dev or test prompt.

Three ways, from the plainest: a user turn is the prompt (equal once normalised); the row holds the prompt or nearly so
(its words, in order, at least `min_copied` of them); the row holds parts of it (at least `min_containment` of its word
n-grams). The second catches a copy with a word in ten changed, which for prompts of ten to thirty words leaves few or
no 8-grams; the third catches long quotes from a long prompt.

Rows are searched by the prompts' 4-grams. A copy of w words with k of them changed, left out or put in keeps at least
w - 3 - 4k of them (the q-gram lemma: Jokinen and Ukkonen 1991, "Two algorithms for approximate string matching in
static texts"), so for min_copied >= .85 none is missed; what is found is then measured word by word.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from stages.core.section import Section
from stages.core.words import I64, U64, chunks, hash_grams, hash_words, normalise

SEED_WORDS = 4
_TABLE_BITS = 20  # of the first sieve: one byte a slot, small enough for a core's cache


class Contamination(Section):
    """How much of a dev or test prompt a row may hold."""

    ngram_words: int = Field(ge=SEED_WORDS, le=50)  # words of the n-grams that are counted
    min_containment: float = Field(gt=0, le=1)  # share of the prompt's n-grams, inclusive
    min_copied: float = Field(ge=0.8, le=1)  # share of the prompt's words, found in order, inclusive
    min_copied_words: int = Field(ge=1)  # a prompt of fewer words must be there whole: one word makes it another
    min_prompt_words: int = Field(ge=SEED_WORDS)  # shorter prompts are common phrases: equality alone counts


class Leak(NamedTuple):
    """A row that holds a prompt."""

    row: int
    prompt: int
    rule: str  # same_prompt, contains_prompt
    similarity: float  # containment or share copied, whichever is greater; 1 for equality
    span: str  # the row's words from the first that is shared to the last


class _Prompts(NamedTuple):
    """The prompts as they are looked for."""

    words: list[list[str]]
    required: I64  # (n_prompts,) seeds that a row must share to be measured
    seeds: U64  # distinct, ascending
    postings: I64  # prompts * 2^32 + position of each seed, grouped by seed
    cuts: I64  # (n_seeds + 1,)


def find_leaks(
    turns: Sequence[Sequence[str]], texts: pl.Series, prompts: Sequence[str], limits: Contamination
) -> list[Leak]:
    """Find the rows that hold one of the prompts: for each row the worst case, ordered by row.

    Args:
        turns: what the user says in each row.
        texts: the whole of each row, prompt and response.
        prompts: dev and test prompts; the first counts where two are held alike.
        limits: the thresholds.
    """
    leaks = {leak.row: leak for leak in _same(turns, prompts)}
    for leak in _held(texts, prompts, limits):
        best = leaks.get(leak.row)
        if best is None or (best.rule == leak.rule and leak.similarity > best.similarity):
            leaks[leak.row] = leak
    return [leaks[row] for row in sorted(leaks)]


def _same(turns: Sequence[Sequence[str]], prompts: Sequence[str]) -> Iterator[Leak]:
    numbers: dict[str, int] = {}
    for i, prompt in enumerate(prompts):
        if words := normalise(prompt):
            numbers.setdefault(words, i)
    for row, said in enumerate(turns):
        for words in map(normalise, said):
            if words in numbers:
                yield Leak(row, numbers[words], "same_prompt", 1.0, words)
                break


def _held(texts: pl.Series, prompts: Sequence[str], limits: Contamination) -> Iterator[Leak]:
    """Give every case of a row that holds a prompt, ordered by row, then by prompt."""
    wanted = _prepare(prompts, limits)
    sieve = np.zeros(1 << _TABLE_BITS, dtype=bool)
    sieve[_slot(wanted.seeds)] = True
    for start, chunk in chunks(texts):
        grams, offsets = hash_grams(hash_words(chunk), SEED_WORDS)
        at = np.flatnonzero(sieve[_slot(grams)])
        seed = np.searchsorted(wanted.seeds, grams[at])
        exact = wanted.seeds[np.minimum(seed, len(wanted.seeds) - 1)] == grams[at] if len(wanted.seeds) else seed < 0
        rows = np.searchsorted(offsets, at[exact], side="right") - 1
        for row, prompt in _candidates(rows, seed[exact], wanted):
            similarity, span = _measure(normalise(chunk[row]).split(), wanted.words[prompt], limits)
            if span:
                yield Leak(start + row, prompt, "contains_prompt", similarity, span)


def _prepare(prompts: Sequence[str], limits: Contamination) -> _Prompts:
    words = [normalise(prompt).split() for prompt in prompts]
    held = [" ".join(item) if len(item) >= limits.min_prompt_words else "" for item in words]
    grams, offsets = hash_grams(hash_words(held), SEED_WORDS)
    lengths = np.diff(offsets)
    prompt = np.repeat(np.arange(len(prompts)), lengths)
    posting = (prompt << 32) + np.arange(len(grams)) - offsets[prompt]
    order = np.argsort(grams, kind="stable")
    seeds, first = np.unique(grams[order], return_index=True)
    required = np.array([_required(len(item), limits) for item in words], dtype=np.int64)
    return _Prompts(words, required, seeds, posting[order], np.append(first, len(grams)))


def _required(n_words: int, limits: Contamination) -> int:
    """How many 4-grams a row shares at the least with a prompt that it holds."""
    changed = floor((1 - _min_copied(n_words, limits)) * n_words + 1e-9)
    copied = n_words - (SEED_WORDS - 1) - SEED_WORDS * changed
    contained = ceil(limits.min_containment * (n_words - limits.ngram_words + 1) - 1e-9)
    return max(min(copied, contained if contained > 0 else copied), 1)


def _min_copied(n_words: int, limits: Contamination) -> float:
    return limits.min_copied if n_words >= limits.min_copied_words else 1.0


def _candidates(rows: I64, seeds: I64, wanted: _Prompts) -> list[tuple[int, int]]:
    """Pair rows with the prompts of which they share enough different seeds."""
    n = wanted.cuts[seeds + 1] - wanted.cuts[seeds]
    first = np.repeat(wanted.cuts[seeds] - np.cumsum(n) + n, n)
    postings = wanted.postings[first + np.arange(n.sum())]
    pairs = np.unique(np.stack([np.repeat(rows, n), postings]), axis=1)
    shared = Counter(zip(pairs[0].tolist(), (pairs[1] >> 32).tolist(), strict=True))
    return sorted(pair for pair, count in shared.items() if count >= wanted.required[pair[1]])


def _measure(row: Sequence[str], prompt: Sequence[str], limits: Contamination) -> tuple[float, str]:
    """Measure how much of a prompt a row holds.

    Returns:
        the greater of containment and share copied, of those that reach their limit, with its span; 0 and no span if
        neither does.
    """
    contained, contained_span = _containment(row, prompt, limits.ngram_words)
    copied, copied_span = _copied(row, prompt)
    found = []
    if contained >= limits.min_containment:
        found.append((contained, contained_span))
    if copied >= _min_copied(len(prompt), limits) - 1e-9:
        found.append((copied, copied_span))
    return max(found, key=lambda item: item[0], default=(0.0, ""))


def _containment(row: Sequence[str], prompt: Sequence[str], n: int) -> tuple[float, str]:
    """The share of the prompt's n-grams that the row holds; 0 where the prompt has none."""
    grams = {tuple(prompt[i : i + n]) for i in range(len(prompt) - n + 1)}
    found = {gram: i for i in range(len(row) - n, -1, -1) if (gram := tuple(row[i : i + n])) in grams}
    if not found:
        return 0.0, ""
    return len(found) / len(grams), " ".join(row[min(found.values()) : max(found.values()) + n])


def _copied(row: Sequence[str], prompt: Sequence[str]) -> tuple[float, str]:
    """The share of the prompt's words that stand in the row in the prompt's order and about as close together."""
    places = defaultdict(list)
    for i in range(len(prompt) - SEED_WORDS + 1):
        places[tuple(prompt[i : i + SEED_WORDS])].append(i)
    begins = Counter(i - j for i in range(len(row)) for j in _at(places, row, i))
    if not begins:
        return 0.0, ""
    begin = max(begins, key=lambda place: (begins[place], -place))
    slack = len(prompt) // 4 + 1  # words put in or left out shift what follows
    low = max(begin - slack, 0)
    window = row[low : begin + len(prompt) + slack]
    blocks = [b for b in SequenceMatcher(None, prompt, window, autojunk=False).get_matching_blocks() if b.size]
    copied = sum(block.size for block in blocks) / len(prompt)
    return copied, " ".join(window[blocks[0].b : blocks[-1].b + blocks[-1].size])


def _at(places: Mapping[tuple[str, ...], list[int]], row: Sequence[str], i: int) -> Sequence[int]:
    return places.get(tuple(row[i : i + SEED_WORDS]), ())


def _slot(grams: U64) -> I64:
    return (grams >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)
