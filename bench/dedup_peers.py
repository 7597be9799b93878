"""Peers of the stage `dedup`, each by its best documented path: `python bench/dedup_peers.py <peer> <folder>`.

Run with the Python of an environment that has bench/requirements.txt, and nothing of this project. Reads texts.parquet
of the folder (bench/dedup_corpus.py), writes <peer>.json: the row numbers that it calls duplicates, and its versions.
All compare sets of 5 words with 128 permutations at 0.8; words are runs of letters, digits and _ in lower case.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

WORD = re.compile(r"\w+")
N_WORDS = 5
PERMUTATIONS = 128
THRESHOLD = 0.8


def texts(folder: Path) -> Iterator[str]:
    """The documents, one at a time."""
    import polars as pl

    for batch in pl.scan_parquet(folder / "texts.parquet").select("text").collect_batches(chunk_size=5_000):
        yield from batch["text"]


def shingles(text: str) -> list[str]:
    """The runs of five words, each once."""
    words = WORD.findall(text.lower())
    return list({" ".join(words[i : i + N_WORDS]) for i in range(len(words) - N_WORDS + 1)})


def datasketch(folder: Path) -> list[int]:
    """MinHash.generator (the lazy `bulk`) with xxhash, then MinHashLSH: query, and insert what is new."""
    import xxhash
    from datasketch import LeanMinHash, MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    encoded = ([item.encode() for item in shingles(text)] for text in texts(folder))
    found = []
    for row, sketch in enumerate(
        MinHash.generator(encoded, num_perm=PERMUTATIONS, seed=1, hashfunc=xxhash.xxh32_intdigest)
    ):
        lean = LeanMinHash(sketch)
        if any(index.query(lean)):
            found.append(row)
        else:
            index.insert(row, lean, check_duplication=False)
    return found


def rensa(folder: Path) -> list[int]:
    """RMinHashDeduplicator with its index, as the README has it, in the order of the rows."""
    from rensa import RMinHashDeduplicator

    sieve = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PERMUTATIONS, use_lsh=True)
    is_new = sieve.add_pairs((str(row), shingles(text)) for row, text in enumerate(texts(folder)))
    return [row for row, new in enumerate(is_new) if not new]


def text_dedup(folder: Path) -> list[int]:
    """`python -m text_dedup.minhash`, which drops all but one of each connected group."""
    from datasets import load_from_disk

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [
            *(sys.executable, "-m", "text_dedup.minhash", "--path", "parquet", "--split", "train"),
            *("--data_files", str(folder / "texts.parquet"), "--cache_dir", f"{scratch}/cache"),
            *("--column", "text", "--ngram", str(N_WORDS), "--num_perm", str(PERMUTATIONS)),
            *("--threshold", str(THRESHOLD), "--min_length", str(N_WORDS), "--output", f"{scratch}/out"),
            *("--hash_func", "xxh3", "--batch_size", "10000"),
        ]
        subprocess.run(command, check=True)
        kept = {int(id_.rpartition(":")[2]) for id_ in load_from_disk(f"{scratch}/out")["id"]}
    return [row for row in range(max(kept) + 1) if row not in kept]


PEERS = {
    "datasketch": (datasketch, ("datasketch", "xxhash")),
    "rensa": (rensa, ("rensa",)),
    "text_dedup": (text_dedup, ("text-dedup", "datasets")),
}


def main() -> None:
    """Run one."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    run, packages = PEERS[name]
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    (folder / f"{name}.json").write_text(json.dumps({"rows": run(folder), "versions": versions}))


if __name__ == "__main__":
    main()
