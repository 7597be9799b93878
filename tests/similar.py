"""Texts that resemble each other, and their Jaccard by the definition."""

from __future__ import annotations

import random

from stages.core.words import normalise


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
