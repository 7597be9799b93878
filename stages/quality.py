"""quality: form each candidate's prompt and keep the rows that pass every rule.

Reads data/extract/<source>.parquet (CANDIDATE) and <source>.left_out.parquet (LEFT_OUT) for each key of `sources`.
Writes data/quality/kept.parquet (EXAMPLE), data/quality/dropped.parquet (QUALITY_DROPPED: the first rule that failed),
data/quality/unfiltered.parquet (EXAMPLE: a sample that skips the rules), metrics/quality.json.

LIMA s2.1 names the rules; `stages.core.rules` has them in their order. *Our reading*: a prompt is the title or the
body, by a draw that belongs to the row; length is measured after cleaning; `unfiltered` is the paper's unfiltered
source of s5, so it asks for a prompt and a response and nothing else.
"""

import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import polars as pl
from pydantic import Field

from stages.common.errors import InputError
from stages.common.files import CACHE, empty_table, read_table, write_json, write_table
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Named, Section
from stages.core.draws import uniform_by_id
from stages.core.rules import Rule, Rules, apply_rules, by_group, make_rules, named_groups, with_text
from stages.runtime.progress import bar
from stages.runtime.shards import work_folder
from stages.runtime.streams import batches, reading, scan_table
from stages.runtime.table_parts import merge_parts, write_part
from stages.schema import CANDIDATE, EXAMPLE, LEFT_OUT, QUALITY_DROPPED

_BATCH_ROWS = 10_000  # rows whose texts are taken apart at a time

Counts = Counter[tuple[str, str, str | None]]  # source, group, rule


class Params(Section):
    """Section `quality`."""

    seed: int = Field(ge=0)
    title_share: dict[
        str, Annotated[float, Field(ge=0, le=1)]
    ]  # by group: rows whose prompt is the title, not the body
    n_unfiltered: int = Field(ge=0)  # rows
    warn_drop_share: float = Field(gt=0, le=1)  # of a source's rows, dropped by one rule
    rules: Rules


class Result(NamedTuple):
    """What `run` gives."""

    kept: list[Path]  # parts of EXAMPLE, each sorted by id
    dropped: list[Path]  # parts of QUALITY_DROPPED, each sorted by id
    unfiltered: pl.DataFrame  # EXAMPLE, sorted by id
    metrics: dict[str, Any]


def run(sources: Mapping[str, pl.LazyFrame], params: Params, folder: Path) -> Result:
    """Judge the candidates (CANDIDATE) of every source, a batch at a time.

    Args:
        sources: tables by source, in any order of rows.
        params: the rules, and how many rows skip them.
        folder: where the parts are written.

    Raises:
        InputError: an id comes twice.
    """
    if repeated := repeated_id(sources.values()):
        raise InputError(f"{repeated}: an id must be unique, got it twice; correct the dump, or a source's keys")
    rules = make_rules(params.rules)
    parts: dict[str, list[Path]] = {"kept": [], "dropped": []}
    unfiltered = empty_table(EXAMPLE).with_columns(draw=pl.lit(None, pl.Float64()))
    counts: Counts = Counter()
    n_rows = pl.concat([empty_table(CANDIDATE).lazy(), *sources.values()]).select(pl.len()).collect().item()
    with bar(desc="quality", total=n_rows, unit="row") as shown:
        for source, frame in sources.items():
            for batch in batches(frame, n_rows=_BATCH_ROWS):
                judged = judge(batch, rules, params)
                for name, rows in (("kept", judged.kept), ("dropped", judged.dropped)):
                    if len(rows):
                        parts[name].append(folder / f"{name}-{len(parts[name]):06d}.parquet")
                        write_part(parts[name][-1], rows)
                unfiltered = lowest(unfiltered, judged.able, params.n_unfiltered)
                count(counts, source, batch, judged.dropped)
                shown.update(len(batch))
    metrics = summarise(list(sources), counts, n_unfiltered=len(unfiltered))
    return Result(parts["kept"], parts["dropped"], unfiltered.select(list(EXAMPLE)).sort("id"), metrics)


def lowest(chosen: pl.DataFrame, able: pl.DataFrame, n: int) -> pl.DataFrame:
    """The n rows of both with the lowest draws; `chosen` has at most n, in order. Most batches change little."""
    if len(chosen) == n:
        able = able.filter(pl.col("draw") <= (chosen["draw"].last() if n else -1.0))
    return pl.concat([chosen, able]).sort("draw", "id").head(n) if len(able) else chosen


def repeated_id(frames: Collection[pl.LazyFrame]) -> str | None:
    """An id that comes twice, or None. Holds 8 bytes a row: ids are told apart by hash, equal hashes by the ids."""
    hashes = pl.concat(
        [pl.Series(dtype=pl.UInt64), *(frame.select(pl.col("id").hash()).collect()["id"] for frame in frames)]
    )
    twice = hashes.sort()
    twice = twice.filter(twice == twice.shift(1)).unique()
    if twice.is_empty():
        return None
    suspect = [
        frame.select("id").filter(pl.col("id").hash().is_in(twice.implode())).collect()["id"] for frame in frames
    ]
    ids = pl.concat(suspect)
    return next(iter(ids.filter(ids.is_duplicated()).sort()), None)


class Judged(NamedTuple):
    """A batch of candidates, judged."""

    kept: pl.DataFrame  # EXAMPLE
    dropped: pl.DataFrame  # QUALITY_DROPPED
    able: pl.DataFrame  # EXAMPLE and `draw`: the rows that have a prompt and a response


def judge(batch: pl.DataFrame, rules: list[Rule], params: Params) -> Judged:
    """Form the prompts of a batch and apply the rules."""
    texts = with_text(form_prompts(batch, params))
    kept, dropped = apply_rules(texts, rules)
    able = texts.filter(_has_text("prompt") & _has_text("response")).select(list(EXAMPLE))
    draws = pl.Series("draw", uniform_by_id(able["id"], seed=params.seed, purpose="unfiltered"), pl.Float64())
    return Judged(kept.select(list(EXAMPLE)), dropped.select(list(QUALITY_DROPPED)), able.with_columns(draws))


def form_prompts(rows: pl.DataFrame, params: Params) -> pl.DataFrame:
    """Replace the first turn of rows that have a title and a body by one of the two, in the groups of `title_share`.

    Other rows stay as they are: title and body joined, where both exist.
    """
    draws = uniform_by_id(rows["id"], seed=params.seed, purpose="title")
    prompt = (
        pl.when(pl.Series(draws) < by_group(params.title_share, pl.Float64()))
        .then(pl.col("title"))
        .otherwise(pl.col("body"))
    )
    turn = pl.struct(pl.lit("user").alias("role"), prompt.alias("content"))
    formed = pl.concat_list(turn, pl.col("messages").list.slice(1))
    chosen = pl.col("group").is_in(list(params.title_share)) & _has_text("title") & _has_text("body")
    return rows.with_columns(messages=pl.when(chosen).then(formed).otherwise(pl.col("messages")))


def count(counts: Counts, source: str, rows: pl.DataFrame, dropped: pl.DataFrame) -> None:
    """Add a batch to the counts: rows in under None, dropped rows under their rule."""
    for group, n in rows.group_by("group").len().rows():
        counts[source, group, None] += n
    for group, rule, n in dropped.group_by("group", "rule").len().rows():
        counts[source, group, rule] += n


def summarise(sources: Sequence[str], counts: Counts, *, n_unfiltered: int) -> dict[str, Any]:
    """Count rows in, kept and dropped by each rule, by source and by group within."""
    rank = {rule: i for i, rule in enumerate([None, *Rules.model_fields])}
    total: dict[str, dict[str, Any]] = {source: {**_counts(), "groups": {}} for source in sources}
    for (source, group, rule), n in sorted(counts.items(), key=lambda item: (*item[0][:2], rank[item[0][2]])):
        for part in (total[source], total[source]["groups"].setdefault(group, _counts())):
            if rule is None:
                part["n_in"] += n
            else:
                part["dropped"][rule] = part["dropped"].get(rule, 0) + n
    for part in (part for source in total.values() for part in (source, *source["groups"].values())):
        part["n_kept"] = part["n_in"] - sum(part["dropped"].values())
    sums = {key: sum(source[key] for source in total.values()) for key in ("n_in", "n_kept")}
    return {**sums, "n_unfiltered": n_unfiltered, "sources": total}


def _counts() -> dict[str, Any]:
    return {"n_in": 0, "n_kept": 0, "dropped": {}}


def by_source(left_out: pl.DataFrame) -> dict[str, dict[str, int]]:
    """What `extract` left out (LEFT_OUT), as counts by source and reason: the part of the funnel before the rules."""
    counts: dict[str, dict[str, int]] = {}
    for source, reason, n in left_out.sort("source", "reason").iter_rows():
        counts.setdefault(source, {})[reason] = n
    return counts


def warnings(metrics: Mapping[str, Any], *, warn_drop_share: float) -> list[str]:
    """Say which rules drop more than a share of a source."""
    return [
        f"{source}: quality.rules.{rule} drops {n:,} of {counts['n_in']:,} rows, more than warn_drop_share "
        f"{warn_drop_share}; look at data/quality/dropped.parquet before you trust what is left"
        for source, counts in metrics["sources"].items()
        for rule, n in counts["dropped"].items()
        if n > warn_drop_share * counts["n_in"]
    ]


def _has_text(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.strip_chars().str.len_chars() > 0


def main() -> None:
    """Judge all sources."""
    params = load_params("quality", Params)
    sources = load_params("sources", Named).names
    frames = {source: scan_table(Path(f"data/extract/{source}.parquet"), CANDIDATE) for source in sources}
    out = pl.concat(read_table(Path(f"data/extract/{source}.left_out.parquet"), LEFT_OUT) for source in sources)
    folder = Path("data/quality")
    with work_folder(CACHE / "quality") as work, reading("data/extract"):
        result = run(frames, params, work)
        for warning in warnings(result.metrics, warn_drop_share=params.warn_drop_share):
            print(f"WARNING: {warning}", file=sys.stderr)
        there = {group for source in result.metrics["sources"].values() for group in source["groups"]}
        if absent := sorted((named_groups(params.rules) | set(params.title_share)) - there):
            print(
                f"WARNING: no row is of these groups that section quality names: {', '.join(absent)}", file=sys.stderr
            )
        merge_parts(result.kept, folder / "kept.parquet", EXAMPLE)
        merge_parts(result.dropped, folder / "dropped.parquet", QUALITY_DROPPED)
    write_table(folder / "unfiltered.parquet", result.unfiltered, EXAMPLE)
    write_json(Path("metrics/quality.json"), {**result.metrics, "left_out": by_source(out)})


if __name__ == "__main__":
    run_stage(main)
