"""contamination: find rows that give away a dev or test prompt.

Three ways, from the plainest: a user turn is the prompt (equal once normalised); the row holds the prompt or nearly so
(its words, in order, at least `min_copied` of them); the row holds parts of it (at least `min_containment` of its word
n-grams). The second catches a copy with a word in ten changed, which for prompts of ten to thirty words leaves few or
no 8-grams; the third catches long quotes from a long prompt. Punctuation parts words, so a copy without any has other
words than the prompt ("whats", "wellknown"): a prompt is looked for in each of the forms that it then takes.

Rows are searched by the prompts' 4-grams. A copy of w words with k of them changed, left out or put in keeps at least
w - 3 - 4k of them (the q-gram lemma: Jokinen and Ukkonen 1991, "Two algorithms for approximate string matching in
static texts"), so for min_copied >= .85 none is missed; what is found is then measured word by word.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from math import ceil, floor
from typing import NamedTuple

import numpy as np
from pydantic import Field

from stages.common.section import Section
from stages.core.dialogues import Dialogues, Mask
from stages.core.kernels import Kernels
from stages.core.words import BASE, I64, U64, Words, hash_grams, hash_words, mix, normalise

SEED_WORDS = 4
_DELETED = tuple(  # what copies leave out: apostrophes, the punctuation of ASCII, or all
    re.compile(pattern) for pattern in ("['\u2018\u2019\u02bc]", "[!-/:-@\\[-`{-~]", r"[^\w\s]|_")
)
_SIEVE_BITS = 20  # of a slot's number, a byte each: half full at 700,000 words of prompts


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


class Guard(NamedTuple):
    """The prompts as they are looked for, each in one form or more."""

    limits: Contamination
    numbers: dict[str, int]  # the prompt of each form that has words; the first of equals
    marks: U64  # of these: length, first and last word in one number, ascending
    prompts: list[int]  # the prompt of each form
    words: list[list[str]]  # of each form
    required: I64  # (n_forms,) seeds that a row must share to be measured
    sieve: Mask  # (2^k,) by the highest bits of the seeds
    seeds: U64  # distinct, ascending
    postings: I64  # forms * 2^32 + position of each seed, grouped by seed
    cuts: I64  # (n_seeds + 1,)


def guard_prompts(prompts: Sequence[str], limits: Contamination) -> Guard:
    """Prepare dev and test prompts to be looked for; the first counts where two are held alike."""
    forms = [(i, form) for i, prompt in enumerate(prompts) for form in _forms(prompt)]
    numbers: dict[str, int] = {}
    for i, form in forms:
        if form:
            numbers.setdefault(form, i)
    normal = [form for _, form in forms]
    words = [form.split() for form in normal]
    held = [text if len(item) >= limits.min_prompt_words else "" for text, item in zip(normal, words, strict=True)]
    grams, offsets = hash_grams(hash_words([text.encode() for text in held]), SEED_WORDS)
    form_of = np.repeat(np.arange(len(forms)), np.diff(offsets))
    posting = (form_of << 32) + np.arange(len(grams)) - offsets[form_of]
    order = np.argsort(grams, kind="stable")
    seeds, first = np.unique(grams[order], return_index=True)
    sieve = np.zeros(1 << _SIEVE_BITS, dtype=bool)
    sieve[seeds >> np.uint64(64 - _SIEVE_BITS)] = True
    required = np.array([_required(item, limits) for item in words], dtype=np.int64)
    marks = np.unique(_marks(hash_words([text.encode() for text in numbers]))[1])
    cuts = np.append(first, len(grams))
    return Guard(limits, numbers, marks, [i for i, _ in forms], words, required, sieve, seeds, posting[order], cuts)


def _forms(prompt: str) -> list[str]:
    """Give the words of a prompt as it is, and as it becomes where punctuation is left out, each once.

    >>> _forms("What's a well-known song?")
    ['what s a well known song', 'whats a well known song', 'whats a wellknown song']
    """
    texts = [prompt, *(deleted.sub("", prompt) for deleted in _DELETED)]
    return list(dict.fromkeys(normalise(text) for text in texts))


def find_leaks(rows: Dialogues, guard: Guard, kernels: Kernels) -> list[Leak]:
    """Find the rows that hold one of the prompts: for each row the worst case, ordered by row."""
    leaks = {leak.row: leak for leak in _same(rows, guard)}
    for leak in _held(rows, guard, kernels):
        best = leaks.get(leak.row)
        if best is None or (best.rule == leak.rule and leak.similarity > best.similarity):
            leaks[leak.row] = leak
    return [leaks[row] for row in sorted(leaks)]


def _same(rows: Dialogues, guard: Guard) -> Iterator[Leak]:
    """Give a case for each row of which a user turn is a prompt."""
    messages, marks = _marks(rows.words)
    likely = messages[rows.messages.is_user[messages] & np.isin(marks, guard.marks)]
    found: set[int] = set()
    for message, row in zip(
        likely.tolist(), (np.searchsorted(rows.messages.cuts, likely, side="right") - 1).tolist(), strict=True
    ):
        words = normalise(rows.messages.contents[message].decode())
        if row not in found and words in guard.numbers:
            found.add(row)
            yield Leak(row, guard.numbers[words], "same_prompt", 1.0, words)


def _marks(words: Words) -> tuple[I64, U64]:
    """Number length, first and last word of each text that has words; with the texts."""
    lengths = np.diff(words.offsets)
    texts = np.flatnonzero(lengths)
    first, last = words.hashes[words.offsets[texts]], words.hashes[words.offsets[texts + 1] - 1]
    return texts, mix(first * BASE + last) + lengths[texts].astype(np.uint64)


def _held(rows: Dialogues, guard: Guard, kernels: Kernels) -> Iterator[Leak]:
    """Give every case of a row that holds a prompt, ordered by row, then by prompt."""
    if not len(guard.seeds):
        return
    holders, grams = kernels.find_grams(rows.whole, SEED_WORDS, guard.sieve)
    seed = np.searchsorted(guard.seeds, grams)
    exact = guard.seeds[np.minimum(seed, len(guard.seeds) - 1)] == grams
    texts: dict[int, list[str]] = {}
    for row, form in _candidates(holders[exact], seed[exact], guard):
        if row not in texts:
            texts = {row: normalise(rows.messages.text(row)).split()}
        similarity, span = _measure(texts[row], guard.words[form], guard.limits)
        if span:
            yield Leak(row, guard.prompts[form], "contains_prompt", similarity, span)


def _required(words: Sequence[str], limits: Contamination) -> int:
    """How many 4-grams a row shares at the least with a prompt that it holds."""
    changed = floor((1 - _min_copied(len(words), limits)) * len(words) + 1e-9)
    copied = len(words) - (SEED_WORDS - 1) - SEED_WORDS * changed
    n = limits.ngram_words
    n_grams = len({tuple(words[i : i + n]) for i in range(len(words) - n + 1)})
    # k runs of n words that begin at different places hold at least k + n - 4 runs of 4
    contained = ceil(limits.min_containment * n_grams - 1e-9) + n - SEED_WORDS
    return max(min(copied, contained) if n_grams else copied, 1)


def _min_copied(n_words: int, limits: Contamination) -> float:
    return limits.min_copied if n_words >= limits.min_copied_words else 1.0


def _candidates(rows: I64, seeds: I64, guard: Guard) -> list[tuple[int, int]]:
    """Pair rows with the forms of prompts of which they share enough different seeds."""
    rows, seeds = np.divmod(np.unique(rows * len(guard.seeds) + seeds), len(guard.seeds))
    n = guard.cuts[seeds + 1] - guard.cuts[seeds]
    first = np.repeat(guard.cuts[seeds] - np.cumsum(n) + n, n)
    forms = guard.postings[first + np.arange(n.sum())] >> 32
    pairs, n_shared = np.unique(np.repeat(rows, n) * len(guard.words) + forms, return_counts=True)
    rows, forms = np.divmod(pairs, max(len(guard.words), 1))
    enough = n_shared >= guard.required[forms]
    return list(zip(rows[enough].tolist(), forms[enough].tolist(), strict=True))


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
