"""dedup: drop rows that give away a dev or test prompt, and rows that repeat a kept one.

Reads data/quality/kept.parquet and data/quality/unfiltered.parquet (EXAMPLE), data/prompts/{dev,test}.parquet (PROMPT).
Writes data/dedup/kept.parquet and data/dedup/unfiltered.parquet (EXAMPLE; the latter lacks the contaminated rows only:
it is uncurated, but does not train on the test), data/dedup/dropped.parquet (DEDUP_DROPPED, a row of either once),
metrics/dedup.json.

LIMA tells nothing of either; in its release one test prompt also stands in the training set. *Our reading*: what is
compared is the response, since the same question has different answers and each is worth having; short responses ("The
answer is 4.") are legitimately the same for different questions, so a short one counts as repeated only with its
prompt. Rows are kept in this order: those without votes first (chosen by hand, not by vote), then by score, highest
first, then by id. Contaminated rows go before, so that no row is dropped for the sake of one that is dropped itself.
"""

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from stages.core.contamination import Contamination, Leak, find_leaks
from stages.core.minhash import Match, MinHashing, near_duplicates, sketch
from stages.core.words import normalise
from stages.runtime.files import empty_table, read_table, write_json, write_table
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
from stages.schema import DEDUP_DROPPED, EXAMPLE, PROMPT

_RULES = ("same_prompt", "contains_prompt", "near_duplicate")


class Params(MinHashing):
    """Section `dedup`."""

    contamination: Contamination


class Result(NamedTuple):
    """What `run` gives; the tables are sorted by id."""

    kept: pl.DataFrame  # EXAMPLE
    unfiltered: pl.DataFrame  # EXAMPLE
    dropped: pl.DataFrame  # DEDUP_DROPPED
    metrics: dict[str, Any]


def run(kept: pl.DataFrame, unfiltered: pl.DataFrame, prompts: pl.DataFrame, params: Params) -> Result:
    """Drop what is contaminated from both tables, and what repeats another row from `kept`.

    Args:
        kept: EXAMPLE, ids distinct.
        unfiltered: EXAMPLE, ids distinct; a row that is also in `kept` is the same row.
        prompts: PROMPT, dev and test.
        params: the thresholds.
    """
    leaked = contaminated(pl.concat([kept, unfiltered.join(kept, on="id", how="anti")]), prompts, params)
    clean = kept.join(leaked, on="id", how="anti")
    repeated = duplicates(clean, params)
    dropped = pl.concat([leaked, repeated]).sort("id")
    result = clean.join(repeated, on="id", how="anti").sort("id")
    bulk = unfiltered.join(leaked, on="id", how="anti").sort("id")
    return Result(result, bulk, dropped, {
        "n_in": len(kept), "n_kept": len(result), "sources": count(kept, dropped),
        "unfiltered": {"n_in": len(unfiltered), "n_kept": len(bulk), "sources": count(unfiltered, leaked)},
    })  # fmt: skip


def contaminated(rows: pl.DataFrame, prompts: pl.DataFrame, params: Params) -> pl.DataFrame:
    """Find the rows that hold a dev or test prompt, as DEDUP_DROPPED."""
    prompts = prompts.sort("id")
    asked = [messages[-1]["content"] for messages in prompts["messages"]]
    users = pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content")
    said = rows["messages"].list.eval(users)
    texts = rows["messages"].list.eval(pl.element().struct.field("content")).list.join("\n\n")
    leaks = find_leaks(said.to_list(), texts, asked, params.contamination)
    return _dropped(rows, prompts["id"], leaks)


def duplicates(rows: pl.DataFrame, params: Params) -> pl.DataFrame:
    """Find the rows that repeat one before them in keep order, as DEDUP_DROPPED."""
    rows = rows.sort(pl.col("score").is_not_null(), -pl.col("score"), "id")
    response = _said(rows, "assistant")
    found = sketch(response, params)
    short = (found.n_words < params.short_words).nonzero()[0].tolist()
    matches = [*near_duplicates(response, found, params), *equal_pairs(short, _said(rows, "user"), response)]
    return _dropped(rows, rows["id"], [Leak(m.row, m.partner, "near_duplicate", m.jaccard, "") for m in matches])


def equal_pairs(members: list[int], prompts: pl.Series, responses: pl.Series) -> list[Match]:
    """Match each member with the first of the same prompt and response, both normalised."""
    first: dict[tuple[str, str], int] = {}
    matches = []
    for row in members:
        partner = first.setdefault((normalise(prompts[row]), normalise(responses[row])), row)
        if partner != row:
            matches.append(Match(row, partner, 1.0))
    return matches


def count(rows: pl.DataFrame, dropped: pl.DataFrame) -> dict[str, Any]:
    """Count rows in, kept and dropped by each rule, by source."""
    n_in = dict(rows["source"].value_counts().sort("source").iter_rows())
    found = dropped.filter(pl.col("id").is_in(rows["id"].implode()))
    counts = {source: {"n_in": n, "n_kept": n, "dropped": dict.fromkeys(_RULES, 0)} for source, n in n_in.items()}
    for source, rule in found.select("source", "rule").iter_rows():
        counts[source]["dropped"][rule] += 1
        counts[source]["n_kept"] -= 1
    return counts


def _said(rows: pl.DataFrame, role: str) -> pl.Series:
    """All that one role says in each row."""
    turns = pl.element().filter(pl.element().struct.field("role") == role).struct.field("content")
    return rows["messages"].list.eval(turns).list.join("\n\n").fill_null("")


def _dropped(rows: pl.DataFrame, partners: pl.Series, leaks: list[Leak]) -> pl.DataFrame:
    reasons = pl.DataFrame(
        {
            "rule": [leak.rule for leak in leaks],
            "partner_id": partners.gather([leak.prompt for leak in leaks]),
            "similarity": [leak.similarity for leak in leaks],
            "span": [leak.span or None for leak in leaks],
        },
        schema_overrides={"rule": pl.String, "similarity": pl.Float64, "span": pl.String},
    )
    told = rows[[leak.row for leak in leaks]].select("id", "source", "domain", "group")
    return pl.concat(
        [empty_table(DEDUP_DROPPED), pl.concat([told, reasons], how="horizontal").select(list(DEDUP_DROPPED))]
    )


def main() -> None:
    """Clear the kept rows and the unfiltered sample."""
    params = load_params("dedup", Params)
    kept, unfiltered = (read_table(Path(f"data/quality/{name}.parquet"), EXAMPLE) for name in ("kept", "unfiltered"))
    prompts = pl.concat([read_table(Path(f"data/prompts/{split}.parquet"), PROMPT) for split in ("dev", "test")])
    result = run(kept, unfiltered, prompts, params)
    folder = Path("data/dedup")
    write_table(folder / "kept.parquet", result.kept, EXAMPLE)
    write_table(folder / "unfiltered.parquet", result.unfiltered, EXAMPLE)
    write_table(folder / "dropped.parquet", result.dropped, DEDUP_DROPPED)
    write_json(Path("metrics/dedup.json"), result.metrics)


if __name__ == "__main__":
    run_stage(main)
