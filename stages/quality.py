"""quality: form each candidate's prompt and keep the rows that pass every rule.

Reads data/extract/<source>.parquet (CANDIDATE) and <source>.left_out.parquet (LEFT_OUT) for each key of `sources`.
Writes data/quality/kept.parquet (EXAMPLE), data/quality/dropped.parquet (QUALITY_DROPPED: the first rule that failed),
data/quality/unfiltered.parquet (EXAMPLE: a sample that skips the rules), metrics/quality.json.

LIMA s2.1 names the rules; `stages.core.rules` has them in their order. *Our reading*: a prompt is the title or the
body, by a draw that belongs to the row; length is measured after cleaning; `unfiltered` is the paper's unfiltered
source of s5, so it asks for a prompt and a response and nothing else.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import polars as pl
from pydantic import Field

from stages.core.draws import uniform_by_id
from stages.core.rules import Rule, Rules, apply_rules, by_group, make_rules, named_groups, with_text
from stages.core.section import Named, Section
from stages.errors import InputError
from stages.runtime.files import empty_table, read_table, write_json, write_table
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
from stages.schema import CANDIDATE, EXAMPLE, LEFT_OUT, QUALITY_DROPPED

_BATCH_ROWS = 50_000  # rows whose texts are taken apart at a time


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
    """What `run` gives; the tables are sorted by id."""

    kept: pl.DataFrame  # EXAMPLE
    unfiltered: pl.DataFrame  # EXAMPLE
    dropped: pl.DataFrame  # QUALITY_DROPPED
    metrics: dict[str, Any]


def run(sources: Mapping[str, pl.DataFrame], params: Params) -> Result:
    """Judge the candidates (CANDIDATE) of every source.

    Raises:
        InputError: an id comes twice.
    """
    rows = pl.concat([empty_table(CANDIDATE), *sources.values()])
    if repeated := rows.filter(pl.col("id").is_duplicated())["id"].head(1).to_list():
        raise InputError(f"{repeated[0]}: an id must be unique, got it twice; correct the dump, or a source's keys")
    rules = make_rules(params.rules)
    judged = [judge(batch, rules, params) for batch in rows.iter_slices(_BATCH_ROWS)]
    kept = pl.concat([empty_table(EXAMPLE), *(batch.kept for batch in judged)]).sort("id")
    dropped = pl.concat([empty_table(QUALITY_DROPPED), *(batch.dropped for batch in judged)]).sort("id")
    able = pl.concat([pl.Series("id", [], pl.String), *(batch.able for batch in judged)])
    chosen = rows.filter(pl.col("id").is_in(sample_ids(able, params).implode()))
    unfiltered = form_prompts(chosen, params).select(list(EXAMPLE)).sort("id")
    return Result(kept, unfiltered, dropped, summarise(list(sources), rows, dropped, n_unfiltered=len(unfiltered)))


class Judged(NamedTuple):
    """A batch of candidates, judged."""

    kept: pl.DataFrame  # EXAMPLE
    dropped: pl.DataFrame  # QUALITY_DROPPED
    able: pl.Series  # ids of the rows that have a prompt and a response


def judge(batch: pl.DataFrame, rules: list[Rule], params: Params) -> Judged:
    """Form the prompts of a batch and apply the rules."""
    texts = with_text(form_prompts(batch, params))
    kept, dropped = apply_rules(texts, rules)
    able = texts.filter(_has_text("prompt") & _has_text("response"))["id"]
    return Judged(kept.select(list(EXAMPLE)), dropped.select(list(QUALITY_DROPPED)), able)


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


def sample_ids(ids: pl.Series, params: Params) -> pl.Series:
    """Draw n_unfiltered of the ids, whatever their order; all where there are fewer."""
    draws = uniform_by_id(ids, seed=params.seed, purpose="unfiltered")
    return pl.DataFrame({"id": ids, "draw": draws}).sort("draw", "id").head(params.n_unfiltered)["id"]


def summarise(
    sources: Sequence[str], rows: pl.DataFrame, dropped: pl.DataFrame, *, n_unfiltered: int
) -> dict[str, Any]:
    """Count rows in, kept and dropped by each rule, by source and by group within."""
    n_in = rows.group_by("source", "group").len().sort("source", "group").rows()
    by_rule = dropped.group_by("source", "group", "rule").len().sort("source", "group", _rank()).rows()
    total: dict[str, dict[str, Any]] = {source: {**_counts(), "groups": {}} for source in sources}
    for source, group, n in n_in:
        total[source]["groups"][group] = _counts(n)
        total[source]["n_in"] += n
    for source, group, rule, n in by_rule:
        for counts in (total[source], total[source]["groups"][group]):
            counts["dropped"][rule] = counts["dropped"].get(rule, 0) + n
    for counts in (part for source in total.values() for part in (source, *source["groups"].values())):
        counts["n_kept"] = counts["n_in"] - sum(counts["dropped"].values())
    return {"n_in": len(rows), "n_kept": len(rows) - len(dropped), "n_unfiltered": n_unfiltered, "sources": total}


def _counts(n_in: int = 0) -> dict[str, Any]:
    return {"n_in": n_in, "n_kept": 0, "dropped": {}}


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


def _rank() -> pl.Expr:
    """The place of a row's rule in the order of the rules."""
    rules = list(Rules.model_fields)
    return pl.col("rule").replace_strict(rules, list(range(len(rules))))


def _has_text(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.strip_chars().str.len_chars() > 0


def main() -> None:
    """Judge all sources."""
    params = load_params("quality", Params)
    sources = load_params("sources", Named).names
    result = run({source: read_table(Path(f"data/extract/{source}.parquet"), CANDIDATE) for source in sources}, params)
    out = pl.concat(read_table(Path(f"data/extract/{source}.left_out.parquet"), LEFT_OUT) for source in sources)
    for warning in warnings(result.metrics, warn_drop_share=params.warn_drop_share):
        print(f"WARNING: {warning}", file=sys.stderr)
    there = {group for source in result.metrics["sources"].values() for group in source["groups"]}
    if absent := sorted((named_groups(params.rules) | set(params.title_share)) - there):
        print(f"WARNING: no row is of these groups that section quality names: {', '.join(absent)}", file=sys.stderr)
    folder = Path("data/quality")
    write_table(folder / "kept.parquet", result.kept, EXAMPLE)
    write_table(folder / "unfiltered.parquet", result.unfiltered, EXAMPLE)
    write_table(folder / "dropped.parquet", result.dropped, QUALITY_DROPPED)
    write_json(Path("metrics/quality.json"), {**result.metrics, "left_out": by_source(out)})


if __name__ == "__main__":
    run_stage(main)
