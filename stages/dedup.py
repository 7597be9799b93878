"""dedup: drop rows that give away a dev or test prompt, and rows that repeat a kept one.

Reads data/quality/kept.parquet and data/quality/unfiltered.parquet (EXAMPLE), data/prompts/{dev,test}.parquet (PROMPT).
Writes data/dedup/kept.parquet and data/dedup/unfiltered.parquet (EXAMPLE; the latter lacks the contaminated rows only:
it is uncurated, but does not train on the test), data/dedup/dropped.parquet (DEDUP_DROPPED, a row of either once),
metrics/dedup.json.

LIMA tells nothing of either; in its release one test prompt also stands in the training set. *Our reading*: what is
compared is the response, since the same question has different answers and each is worth having; short responses ("The
answer is 4.") are legitimately the same for different questions, so a short one counts as repeated only with its
prompt. Rows are kept in this order: those without votes first (chosen by hand, not by vote), then by score, highest
first, then by turns, most first (a dialogue holds the row that it goes on from), then by id. Contaminated rows go
before, so that no row is dropped for the sake of one that is dropped itself.

Texts are read in batches, on all cores, and never held: of a row stay some 200 bytes. What is found out about a row is
kept under .cache/dedup by the content of its messages, so a new source, or a changed rule before, costs its own rows.
Rows that are in `unfiltered` alone are searched for prompts on every run, and never sketched.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl

from stages.common.files import CACHE, empty_table, read_table, write_json, write_table
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.core.contamination import Contamination, Guard, Leak, find_leaks, guard_prompts
from stages.core.dialogues import read_words, take_apart
from stages.core.kernels import PLAIN, Kernels, compiled_kernels
from stages.core.known import Findings, Reading, blank_findings, index, read_batch, shingle_sets
from stages.core.minhash import MinHashing, least_agreement, shared_buckets
from stages.core.repeats import Match, near_duplicates
from stages.core.words import I64
from stages.runtime.parallel import in_order
from stages.runtime.shelf import Shelf
from stages.runtime.sketch_cache import SketchCache
from stages.runtime.streams import batches, reading, scan_table, sink_table
from stages.schema import DEDUP_DROPPED, EXAMPLE, PROMPT

_RULES = ("same_prompt", "contains_prompt", "near_duplicate")
_BATCH_ROWS = 1_000  # rows whose texts are in memory at a time, on each core twice
_MANY_ROWS = 20_000  # from here on compiled loops win back what they take to load


class Params(MinHashing):
    """Section `dedup`."""

    contamination: Contamination


class Means(NamedTuple):
    """What `run` works with; it changes the time, never the result."""

    kernels: Kernels
    known: Findings  # of earlier runs
    file: BinaryIO  # empty, for shingles


class Result(NamedTuple):
    """What `run` gives; the tables are sorted by id."""

    kept: pl.LazyFrame  # EXAMPLE
    unfiltered: pl.LazyFrame  # EXAMPLE
    dropped: pl.DataFrame  # DEDUP_DROPPED
    metrics: dict[str, Any]
    findings: Findings  # of the rows of `kept`, as they came
    n_sketched: int  # rows that were not known


class Read(NamedTuple):
    """What reading a table found."""

    findings: Findings
    leaks: list[Leak]  # ordered by row
    short: dict[int, bytes]  # rows of short responses, and what is equal where prompt and response are
    n_messages: I64  # (n_rows,)
    n_sketched: int


def run(kept: pl.LazyFrame, unfiltered: pl.LazyFrame, prompts: pl.DataFrame, params: Params, means: Means) -> Result:
    """Drop what is contaminated from both tables, and what repeats another row from `kept`.

    Args:
        kept: EXAMPLE, ids distinct. It is read twice and more, so it should be a file or a frame.
        unfiltered: EXAMPLE, ids distinct; a row that is also in `kept` is the same row.
        prompts: PROMPT, dev and test.
        params: the thresholds.
        means: what to work with.
    """
    kept_ids, bulk_ids = told_rows(kept), told_rows(unfiltered)
    prompts = prompts.sort("id")
    guard = guard_prompts(asked(prompts), params.contamination)
    read = read_rows(kept, len(kept_ids), guard, params, means)
    bulk_rows = bulk_ids.join(kept_ids, on="id", how="anti", maintain_order="left")
    only_bulk = unfiltered.filter(pl.col("id").is_in(bulk_rows["id"].implode()))
    bulk_leaks = read_leaks(only_bulk, guard, means.kernels)
    leaked = pl.concat(
        reasons(rows, prompts["id"], leaks) for rows, leaks in ((kept_ids, read.leaks), (bulk_rows, bulk_leaks))
    )
    repeated = duplicates(kept, kept_ids, read, params, means)
    dropped = pl.concat([leaked, repeated]).sort("id")
    n_left = len(kept_ids) - len(repeated) - len(read.leaks)
    bulk_leaked = leaked.filter(pl.col("id").is_in(bulk_ids["id"].implode()))
    return Result(
        without(kept, kept_ids, dropped), without(unfiltered, bulk_ids, leaked), dropped,
        {
            "n_in": len(kept_ids), "n_kept": n_left, "sources": count(kept_ids, dropped),
            "unfiltered": {
                "n_in": len(bulk_ids), "n_kept": len(bulk_ids) - len(bulk_leaked), "sources": count(bulk_ids, leaked)
            },
        },
        read.findings, read.n_sketched,
    )  # fmt: skip


def asked(prompts: pl.DataFrame) -> list[str]:
    """What each prompt asks: its last turn."""
    return prompts["messages"].list.last().struct.field("content").to_list()


def told_rows(table: pl.LazyFrame) -> pl.DataFrame:
    """What is told of rows beside their texts, in the table's order."""
    names = [pl.col(name).cast(pl.Categorical) for name in ("source", "domain", "group")]
    return table.select("id", *names, "score").collect(engine="streaming")


def read_rows(table: pl.LazyFrame, n_rows: int, guard: Guard, params: Params, means: Means) -> Read:
    """Read each of n_rows rows once: its sketch, and whether it holds a dev or test prompt."""
    known = index(means.known)

    def read(batch: pl.DataFrame) -> tuple[Reading, pl.Series]:
        messages = batch["messages"]
        return read_batch(messages, known, guard, params, means.kernels), messages.list.len()

    found = blank_findings(n_rows, params.n_permutations)
    leaks: list[Leak] = []
    short: dict[int, bytes] = {}
    n_messages = np.zeros(n_rows, dtype=np.int64)
    start = n_sketched = 0
    for part, lengths in in_order(read, batches(table.select("messages"), n_rows=_BATCH_ROWS)):
        found.put(start, part.findings)
        leaks += [leak._replace(row=start + leak.row) for leak in part.leaks]
        short.update(zip((start + part.short).tolist(), part.short_keys, strict=True))
        n_messages[start : start + len(lengths)] = lengths.to_numpy()
        n_sketched += part.n_sketched
        start += len(part.findings.digests)
    return Read(found, leaks, short, n_messages, n_sketched)


def read_leaks(table: pl.LazyFrame, guard: Guard, kernels: Kernels) -> list[Leak]:
    """Find the rows that hold a dev or test prompt, and nothing else about them: no sketch."""

    def read(batch: pl.DataFrame) -> tuple[list[Leak], int]:
        return find_leaks(read_words(take_apart(batch["messages"]), kernels), guard, kernels), len(batch)

    leaks: list[Leak] = []
    start = 0
    for found, n_rows in in_order(read, batches(table.select("messages"), n_rows=_BATCH_ROWS)):
        leaks += [leak._replace(row=start + leak.row) for leak in found]
        start += n_rows
    return leaks


def duplicates(table: pl.LazyFrame, rows: pl.DataFrame, read: Read, params: Params, means: Means) -> pl.DataFrame:
    """Find the rows that repeat one before them in keep order, as DEDUP_DROPPED; contaminated ones aside."""
    order = keep_order(rows, read.n_messages)
    is_left = np.ones(len(rows), dtype=np.bool_)
    is_left[[leak.row for leak in read.leaks]] = False
    long = np.flatnonzero(is_left & (read.findings.n_words >= params.short_words))
    sketch, least = read.findings.sketches, least_agreement(params)
    buckets = shared_buckets(sketch, long, params.n_bands, least=least, each=in_order)
    shelf = Shelf(means.file)
    fill(shelf, table, buckets.rows, params, means.kernels)
    place = np.full(len(rows), -1, dtype=np.int64)
    place[buckets.rows] = np.arange(len(buckets.rows))
    walk = place[order]
    near = near_duplicates(walk[walk >= 0], buckets, sketch, shelf.get, params, means.kernels)
    matches = [*near, *equal_pairs([row for row in order.tolist() if row in read.short and is_left[row]], read.short)]
    return reasons(rows, rows["id"], [Leak(m.row, m.partner, "near_duplicate", m.jaccard, "") for m in matches])


def keep_order(rows: pl.DataFrame, n_messages: I64) -> I64:
    """Rows as they are preferred: without votes first, then by score, then by turns, most first, then by id."""
    ranked = (
        rows.with_columns(n_messages=pl.Series(n_messages))
        .with_row_index("row")
        .sort(pl.col("score").is_not_null(), -pl.col("score"), -pl.col("n_messages"), "id")
    )
    return ranked["row"].to_numpy().astype(np.int64)


def fill(shelf: Shelf, table: pl.LazyFrame, rows: I64, params: Params, kernels: Kernels) -> None:
    """Put the shingles of some rows, ascending, on a shelf."""

    def wanted() -> Iterator[tuple[pl.Series, I64]]:
        start = 0
        for batch in batches(table.select("messages"), n_rows=_BATCH_ROWS):
            first, after = np.searchsorted(rows, [start, start + len(batch)])
            if after > first:
                yield batch["messages"], rows[first:after] - start
            start += len(batch)

    for sets in in_order(lambda item: shingle_sets(*item, params, kernels), wanted() if len(rows) else ()):
        shelf.put(sets)


def equal_pairs(members: list[int], keys: dict[int, bytes]) -> list[Match]:
    """Match each member, in keep order, with the first of the same key."""
    first: dict[bytes, int] = {}
    matches = []
    for row in members:
        partner = first.setdefault(keys[row], row)
        if partner != row:
            matches.append(Match(row, partner, 1.0))
    return matches


def without(table: pl.LazyFrame, rows: pl.DataFrame, dropped: pl.DataFrame) -> pl.LazyFrame:
    """The table without the dropped rows, sorted by id; it seldom needs sorting."""
    left = table.filter(~pl.col("id").is_in(dropped["id"].implode()))
    return left if rows["id"].is_sorted() else left.sort("id")


def count(rows: pl.DataFrame, dropped: pl.DataFrame) -> dict[str, Any]:
    """Count rows in, kept and dropped by each rule, by source."""
    n_in = dict(sorted(rows["source"].value_counts().iter_rows()))
    found = dropped.filter(pl.col("id").is_in(rows["id"].implode()))
    counts = {source: {"n_in": n, "n_kept": n, "dropped": dict.fromkeys(_RULES, 0)} for source, n in n_in.items()}
    for source, rule in found.select("source", "rule").iter_rows():
        counts[source]["dropped"][rule] += 1
        counts[source]["n_kept"] -= 1
    return counts


def reasons(rows: pl.DataFrame, partners: pl.Series, leaks: list[Leak]) -> pl.DataFrame:
    """Tell why rows were dropped, as DEDUP_DROPPED."""
    found = pl.DataFrame(
        {
            "rule": [leak.rule for leak in leaks],
            "partner_id": partners.gather([leak.prompt for leak in leaks]),
            "similarity": [leak.similarity for leak in leaks],
            "span": [leak.span or None for leak in leaks],
        },
        schema_overrides={"rule": pl.String, "similarity": pl.Float64, "span": pl.String},
    )
    told = rows[[leak.row for leak in leaks]].select("id", pl.col("source", "domain", "group").cast(pl.String))
    return pl.concat(
        [empty_table(DEDUP_DROPPED), pl.concat([told, found], how="horizontal").select(list(DEDUP_DROPPED))]
    )


def main() -> None:
    """Clear the kept rows and the unfiltered sample."""
    params = load_params("dedup", Params)
    kept, unfiltered = (scan_table(Path(f"data/quality/{name}.parquet"), EXAMPLE) for name in ("kept", "unfiltered"))
    prompts = pl.concat([read_table(Path(f"data/prompts/{split}.parquet"), PROMPT) for split in ("dev", "test")])
    cache = SketchCache(CACHE / "dedup", params, params.contamination, asked(prompts.sort("id")))
    CACHE.mkdir(parents=True, exist_ok=True)
    with reading("data/quality/{kept,unfiltered}.parquet"), TemporaryFile(dir=CACHE, buffering=0) as file:
        by_source = kept.select("source").collect(engine="streaming")["source"]
        sources = sorted(by_source.unique())
        kernels = compiled_kernels() if len(by_source) >= _MANY_ROWS else PLAIN
        result = run(kept, unfiltered, prompts, params, Means(kernels, cache.load(sources), file))
        for source in sources:
            cache.save(source, result.findings.take((by_source == source).arg_true().to_numpy()))
        print(f"sketched {result.n_sketched:,} of {len(by_source):,} rows; the others were known")
        folder = Path("data/dedup")
        sink_table(folder / "kept.parquet", result.kept, EXAMPLE)
        sink_table(folder / "unfiltered.parquet", result.unfiltered, EXAMPLE)
    write_table(folder / "dropped.parquet", result.dropped, DEDUP_DROPPED)
    write_json(Path("metrics/dedup.json"), result.metrics)


if __name__ == "__main__":
    run_stage(main)
