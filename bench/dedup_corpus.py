"""Synthetic documents with planted near-duplicates of known Jaccard, as what the stage `dedup` reads.

python -m bench.dedup_corpus <folder> <n> [--seed 1] [--templated 0]

Every document is a function of the seed and its number, so any can be made again: a copy makes its original and edits
it. Words are Zipf-distributed over 60,000; of all documents a tenth ends with one of three common sentences, a tenth
has curly quotes and accents, and a tenth are copies: the same, laid out otherwise, words replaced here and there, or a
block replaced, the last two to a Jaccard between .5 and .995. The Jaccard of a pair is that of the sets of its 5-tuples
of words, by plain Python. The last `templated` documents are of one template, 400 words of which 14 are each one's own:
any two have a Jaccard of about .70, so none repeats another. Writes into the folder

    data/quality/{kept,unfiltered}.parquet, data/prompts/{dev,test}.parquet   as the stages before `dedup` would
    texts.parquet   id, text: the responses alone, for those who read no dialogues
    pairs.parquet   a, b (row numbers), kind, jaccard
"""

import argparse
import random
import re
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from stages.common.files import write_table
from stages.runtime.streams import sink_table
from stages.schema import EXAMPLE, PROMPT, PROVENANCE

SHARD = 10_000  # documents made by one process at a time
N_SOURCES = 8
COPIES = 0.1
COMMON = re.findall(
    r"\w+",
    "the of and to a in is it you that he was for on are as with his they at be this have from or one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out many",
)
SYLLABLES = re.findall(
    r"\w+",
    "ba be bi bo ca ce ci co da de di do fa fe fi ga ge go ha he hi ka la le li lo ma me mi mo na ne ni no pa pe pi po "
    "ra re ri ro sa se si so ta te ti to va ve vi wa we wi an er ing ed ly tion ment st",
)
TAILS = (
    "I hope this helps, and do say so in the comments if anything is unclear to you.",
    "Edit: many thanks to all of you for the kind words, and have a very nice day.",
    "This post may be shared under the usual terms, which stand at the foot of the page.",
)


class Plan(NamedTuple):
    """Which documents are copies, and of which."""

    seed: int
    n: int
    original: np.ndarray[Any, np.dtype[np.int64]]  # (n,) -1 where the document is none
    n_templated: int  # the last ones


def plan(seed: int, n: int, *, n_templated: int) -> Plan:
    """Draw copies and originals, all different."""
    drawn = np.random.default_rng(seed).permutation(n - n_templated)
    n_copies = int(len(drawn) * COPIES)
    original = np.full(n, -1, dtype=np.int64)
    original[drawn[:n_copies]] = drawn[n_copies : 2 * n_copies]
    return Plan(seed, n, original, n_templated)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[Any, Any]:
    """60,000 words, the frequent ones short, and the distribution function of their frequencies."""
    rng = random.Random(7)
    words = dict.fromkeys(COMMON)
    while len(words) < 60_000:
        words.setdefault("".join(rng.choices(SYLLABLES, k=rng.choice((1, 2, 2, 3, 3, 4, 5)))))
    frequencies = 1.0 / np.arange(1, len(words) + 1) ** 1.02
    return np.array(list(words), dtype=object), np.cumsum(frequencies / frequencies.sum())


def draw_words(rng: np.random.Generator, n: int) -> list[str]:
    """Draw words by their frequencies."""
    words, distribution = vocabulary()
    return list(words[np.minimum(np.searchsorted(distribution, rng.random(n)), len(words) - 1)])


def document(seed: int, number: int) -> str:
    """Make a document of some 3,100 characters, without copies."""
    rng = np.random.default_rng((seed, number))
    words = draw_words(rng, int(rng.integers(350, 660)))
    at = 0
    for sentence, length in enumerate(rng.integers(6, 22, 128).tolist()):
        last = min(at + length, len(words)) - 1
        words[at] = words[at].capitalize()
        words[last] += ".\n\n" if sentence % 6 == 5 else "."
        at = last + 1
        if at == len(words):
            break
    if rng.random() < 0.1:
        words.append(TAILS[rng.integers(len(TAILS))])
    if rng.random() < 0.1:
        for place in rng.integers(0, len(words), 12):
            words[place] = f"“{words[place]}”" if place % 2 else words[place].replace("e", "é")
    return " ".join(words)


def templated(seed: int, number: int) -> str:
    """Make a document of the template: its own words stand 28 apart."""
    words = draw_words(np.random.default_rng((seed, 4)), 400)
    own = np.random.default_rng((seed, number, 5)).integers(10**6, size=14)
    words[7::28] = [f"own{word}" for word in own] + words[7::28][14:]
    return " ".join(words)


def edited(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """Copy a text; and the kind of the copy."""
    kind = rng.choice(["exact", "format", "words", "block"], p=[0.1, 0.1, 0.48, 0.32])
    if kind == "exact":
        return text, kind
    if kind == "format":
        return (text.upper() if rng.random() < 0.3 else "  " + text.replace(". ", ".  ").replace(".\n", " !\n")), kind
    words = text.split(" ")
    n, jaccard = len(words), rng.uniform(0.5, 0.995)
    n_lost = (n - 4) * (1 - jaccard) / (1 + jaccard)  # shingles that each side has alone
    if kind == "words":
        for place in rng.choice(n, size=min(max(round(n_lost / 5), 1), n), replace=False):
            words[place] = f"{draw_words(rng, 1)[0]}x"
    else:
        size = max(round(n_lost), 1)
        first = int(rng.integers(0, max(n - size, 1)))
        words[first : first + size] = [f"{word}q" for word in draw_words(rng, size)]
    return " ".join(words), kind


def true_jaccard(a: str, b: str) -> float:
    """By the definition, slowly."""
    first, second = shingles(a), shingles(b)
    return len(first & second) / len(first | second)


def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """The tuples of n words."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return set(zip(*(words[k:] for k in range(n)), strict=False))


def text_of(plan: Plan, number: int) -> tuple[str, str | None]:
    """The document of a number, and the kind of copy that it is."""
    if number >= plan.n - plan.n_templated:
        return templated(plan.seed, number), None
    if plan.original[number] < 0:
        return document(plan.seed, number), None
    rng = np.random.default_rng((plan.seed, number, 1))
    return edited(document(plan.seed, int(plan.original[number])), rng)


def make_shard(folder: Path, plan: Plan, first: int) -> None:
    """Write a shard of rows, texts and pairs."""
    numbers = range(first, min(first + SHARD, plan.n))
    made = [text_of(plan, number) for number in numbers]
    texts = [text for text, _ in made]
    rng = np.random.default_rng((plan.seed, first, 2))
    prompts = [" ".join(draw_words(rng, 11)) + "?" for _ in numbers]
    names = [f"source{number * N_SOURCES // plan.n}" for number in numbers]
    rows = pl.DataFrame(
        {
            "id": [f"{name}:{number:08d}" for name, number in zip(names, numbers, strict=True)],
            "source": names,
            "domain": [f"domain{number % 20}" for number in numbers],
            "group": ["stack_exchange_other"] * len(texts),
            "score": rng.integers(0, 100, len(texts)),
            "messages": [
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
                for prompt, text in zip(prompts, texts, strict=True)
            ],
            "url": [f"https://example.org/{number}" for number in numbers],
            "author": [f"author {number % 5000}" for number in numbers],
            "license": ["CC BY-SA 4.0"] * len(texts),
            "created": [None] * len(texts),
            "tags": [None] * len(texts),
            "prompt_score": [None] * len(texts),
        },
        schema=EXAMPLE,
    )
    pairs = [
        (int(plan.original[number]), number, kind, true_jaccard(document(plan.seed, int(plan.original[number])), text))
        for number, (text, kind) in zip(numbers, made, strict=True)
        if kind
    ]
    write_table(folder / f"shards/rows-{first:09d}.parquet", rows, EXAMPLE)
    columns = {"a": pl.Int64(), "b": pl.Int64(), "kind": pl.String(), "jaccard": pl.Float64()}
    write_table(folder / f"shards/pairs-{first:09d}.parquet", pl.DataFrame(pairs, columns, orient="row"), columns)


def make(folder: Path, n: int, *, seed: int = 1, n_templated: int = 0) -> None:
    """Make the corpus of n documents; nothing where it is there."""
    if (folder / "pairs.parquet").is_file():
        return
    drawn = plan(seed, n, n_templated=n_templated)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(make_shard, folder, drawn), range(0, n, SHARD)))
    rows = pl.scan_parquet(folder / "shards/rows-*.parquet")
    sink_table(folder / "data/quality/kept.parquet", rows, EXAMPLE)
    sink_table(folder / "data/quality/unfiltered.parquet", rows.head(n // 100), EXAMPLE)
    text = pl.col("messages").list.get(1).struct.field("content").alias("text")
    sink_table(folder / "texts.parquet", rows.select("id", text), {"id": pl.String(), "text": pl.String()})
    rng = np.random.default_rng((seed, 3))
    for split, size in (("dev", 50), ("test", 300)):
        cells = [
            {
                **dict.fromkeys([*PROMPT, *PROVENANCE]),
                "id": f"authored:{split}-{i:04d}",
                "messages": [{"role": "user", "content": " ".join(draw_words(rng, int(rng.integers(6, 60)))) + "?"}],
            }
            for i in range(size)
        ]
        write_table(folder / f"data/prompts/{split}.parquet", pl.DataFrame(cells, PROMPT), PROMPT)
    pairs = pl.read_parquet(folder / "shards/pairs-*.parquet")
    write_table(folder / "pairs.parquet", pairs, dict(pairs.schema))
    for shard in (folder / "shards").iterdir():
        shard.unlink()


def main() -> None:
    """Make one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--templated", type=int, default=0, help="documents, of the n")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.n, seed=arguments.seed, n_templated=arguments.templated)


if __name__ == "__main__":
    main()
