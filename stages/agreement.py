"""agreement: tell how far the annotators of any pairwise votes agree, people and machines.

Reads files of votes (.csv, .tsv, .json, .jsonl, .parquet, each but the last also .gz) in the shapes of MT-Bench,
Chatbot Arena, AlpacaEval, PandaLM, LLMBar, RewardBench or data/annotations; votes on one item may lie in several.
Writes nothing, or with --out the tables as csv; prints what was taken for what, then

- each annotator's votes: pairs, ties, pairs whose orders disagree, failures, first position preferred;
- every two kinds of annotators, e.g. human and gpt-4, over all pairs of their votes on one item;
- every two annotators, if they are at most 12;
- the strength of each system, if they have names.

    python -m stages.agreement data/pandalm/testset-v1.json data/pandalm/gpt-3.5-turbo-testset-v1.json --majority
    python -m stages.agreement votes.csv --item task --annotator who --preference better --values left=a right=b

Agreement is the tie-discounted accuracy of LIMA s4.3; kappa has linear weights; alpha is Krippendorff's, nominal;
exact is the share of the same verdict, decided the same among pairs where both prefer a side. Brackets are intervals
over prompts. A verdict that failed is in no rate. An item may be shown in both orders: where the two disagree, the
pair is inconsistent, which counts as no preference and as no declared tie.

LIMA s4.3. Names in the columns `annotator` that look like people's (human_3, expert_12, author_1, annotator2, ...) are
one kind each; --people names others. A preference is about the systems, not about positions; without a column that
says so, the system that a record lists first was shown first.
"""

import argparse
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from stages.common.errors import ParamsError
from stages.common.files import write_csv
from stages.common.main import run_command
from stages.core.agreement_tables import agreement_groups_table, agreement_table
from stages.core.intervals import Intervals
from stages.core.people import PEOPLE, group_of
from stages.core.preferences import resolve, scored
from stages.core.score_tables import BRADLEY_TERRY, bradley_terry_table
from stages.core.votes import CHOSEN, FIRST, MEANINGS, ROLES, Votes, combine, majority
from stages.runtime.vote_files import read_vote_file

MAJORITY = "majority"
MAX_ANNOTATORS = 12  # beyond, every two would fill screens


class Tables(NamedTuple):
    """What is told, a csv each with --out."""

    annotators: pl.DataFrame
    agreement_groups: pl.DataFrame
    agreement: pl.DataFrame | None
    systems: pl.DataFrame


def run(votes: Votes, intervals: Intervals, *, people: Sequence[str], with_majority: bool) -> Tables:
    """Measure agreement.

    Args:
        votes: of one or several files.
        intervals: how intervals are made.
        people: patterns of names that are people's, beside those that look like it.
        with_majority: add what most people say, as an annotator.
    """
    names = votes.frame["annotator"].unique().sort().to_list()
    groups = {name: _group(name, people) or name for name in names}
    frame = votes.frame
    if with_majority:
        persons = [name for name in names if groups[name] != name]
        frame = pl.concat([frame, majority(frame, persons, name=MAJORITY)])
        groups[MAJORITY] = MAJORITY
    pairs = resolve(frame)
    by_group = agreement_groups_table(pairs, groups, intervals)
    each = agreement_table(pairs, intervals) if len(groups) <= MAX_ANNOTATORS else None
    return Tables(annotators_table(frame, pairs, groups), by_group, each, systems_table(pairs, groups, intervals))


def systems_table(pairs: pl.DataFrame, groups: Mapping[str, str], intervals: Intervals) -> pl.DataFrame:
    """Bradley-Terry strengths of named systems by kind of annotators, against the system with the most comparisons.

    A kind that never saw that one is told against its own most compared. A system that no chain of comparisons leads to
    from there has no strength.
    """
    kind = pl.col("annotator").replace_strict(dict(groups), return_dtype=pl.String)
    named = pairs.filter(~pl.col("a").is_in([FIRST, CHOSEN])).with_columns(kind.alias("annotator"))
    tables = [pl.DataFrame(schema=BRADLEY_TERRY)]
    often = next(iter(_most_compared(scored(named))), None)
    for (name,), some in sorted(scored(named).partition_by("annotator", as_dict=True).items()):
        own = _most_compared(some)
        anchor = often if often in own else next(iter(own))
        tables.append(bradley_terry_table(some, anchor=anchor, intervals=intervals))
        rest = [
            (name, system, n, None, None, None) for system, n in own.items() if system not in tables[-1]["responder"]
        ]
        tables.append(pl.DataFrame(rest, schema=BRADLEY_TERRY, orient="row"))
    return pl.concat(tables)


def _most_compared(pairs: pl.DataFrame) -> dict[str, int]:
    """How many comparisons each system took part in, the most first."""
    both = pl.concat([pairs["a"], pairs["b"].alias("a")])
    return dict(both.value_counts().sort(["count", "a"], descending=[True, False]).iter_rows())


def annotators_table(votes: pl.DataFrame, pairs: pl.DataFrame, groups: Mapping[str, str]) -> pl.DataFrame:
    """How each kind of annotator votes: counts of pairs, and shares of the scored."""
    kind = pl.col("annotator").replace_strict(dict(groups), return_dtype=pl.String).alias("group")
    is_first = pl.col("preference").replace({"a": "ab", "b": "ba"}) == pl.col("order")
    first = (
        votes.filter(pl.col("preference") != "tie", pl.col("order").is_not_null())
        .group_by(kind)
        .agg(is_first.mean().alias("first_rate"))
    )
    said = pl.col("outcome")
    is_scored = ~said.is_in(["unscored", "not_applicable"])
    counted = pairs.group_by(kind).agg(
        pl.col("annotator").n_unique().alias("n_annotators"),
        is_scored.sum().alias("n"),
        (said == "unscored").sum().alias("n_failed"),
        (said.filter(is_scored) == "tie").mean().alias("tie_rate"),
        (said.filter(is_scored) == "inconsistent").mean().alias("inconsistent_rate"),
    )
    return counted.join(first, on="group", how="left").sort("group")


def _group(name: str, people: Sequence[str]) -> str | None:
    return PEOPLE if any(fnmatchcase(name, pattern) for pattern in people) else group_of(name)


def told(tables: Tables) -> list[str]:
    """The tables as lines for a terminal."""
    lines = ["", "annotators", *_lines(tables.annotators, _ANNOTATORS)]
    if tables.agreement_groups.is_empty():
        lines += [
            "",
            "agreement is not measured: no two annotators have voted on one item; if they have, give the files",
        ]
        lines += ["of both, or name the column that holds the item (--item)"]
    else:
        columns = {"group_a": "", "group_b": "", **_MEASURED}
        lines += ["", "agreement of kinds of annotators", *_lines(tables.agreement_groups, columns)]
    if tables.agreement is not None and tables.agreement.height != tables.agreement_groups.height:
        columns = {"annotator_a": "", "annotator_b": "", **_MEASURED}
        lines += ["", "agreement of every two", *_lines(tables.agreement, columns)]
    if not tables.systems.is_empty():
        title = "systems: Bradley-Terry strengths, log-odds of being preferred to the one at 0"
        lines += ["", title, *_lines(tables.systems, _SYSTEMS)]
    return lines


_ANNOTATORS = {
    "group": "", "n_annotators": "annotators", "n": "pairs", "n_failed": "failed", "tie_rate": "tie",
    "inconsistent_rate": "inconsistent", "first_rate": "first preferred",
}  # fmt: skip
_SYSTEMS = {"annotator": "", "responder": "", "n": "pairs", "strength": "strength", "low": "[]"}
_MEASURED = {
    "n": "pairs", "agreement": "agreement", "low": "[]", "kappa": "kappa", "kappa_low": "[]", "alpha": "alpha",
    "alpha_low": "[]", "exact": "exact", "decided": "decided", "tie_rate_a": "ties a", "tie_rate_b": "ties b",
}  # fmt: skip


def _lines(table: pl.DataFrame, columns: Mapping[str, str]) -> list[str]:
    """Rows under their titles; a column titled [] is written with its upper end behind the one before it."""
    shown = [list(columns.values())]
    shown += [[_cell(row, name, title) for name, title in columns.items()] for row in table.iter_rows(named=True)]
    texts = [[("" if cell == "[]" else cell) for cell in row] for row in shown]
    widths = [max(len(row[place]) for row in texts) for place in range(len(columns))]
    is_word = [name.startswith(("group", "annotator", "responder")) for name in columns]
    return [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_word, strict=True)
        ).rstrip()
        for row in texts
    ]


def _cell(row: Mapping[str, Any], name: str, title: str) -> str:
    value = row[name]
    if title == "[]":
        high = row[name.replace("low", "high")]
        return "" if value is None or high is None else f"[{value:.3f}, {high:.3f}]"
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def main(arguments: argparse.Namespace) -> None:
    """Read the files, print the tables."""
    if not 0 < arguments.confidence < 1:
        raise ParamsError(f"--confidence: must lie between 0 and 1, got {arguments.confidence:g}; 0.95 is usual")
    columns = {role: value for role in ROLES if (value := getattr(arguments, role))}
    meanings = dict(_meaning(text) for text in arguments.values)
    votes = combine(read_vote_file(path, columns=columns, meanings=meanings) for path in arguments.files)
    intervals = Intervals(seed=0, n_bootstrap=2000, confidence=arguments.confidence)
    tables = run(votes, intervals, people=arguments.people, with_majority=arguments.majority)
    print("\n".join([*votes.notes, *told(tables)]))
    if arguments.out is not None:
        for name, table in tables._asdict().items():
            if table is not None:
                write_csv(arguments.out / f"{name}.csv", table)


def _meaning(text: str) -> tuple[str, str]:
    value, _, meaning = text.rpartition("=")
    if meaning not in MEANINGS:
        raise ParamsError(f"--values: must be VALUE=a, VALUE=b, VALUE=tie or VALUE=failed, got {text!r}; correct it")
    return value, meaning


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    given = argparse.ArgumentParser(
        prog="python -m stages.agreement", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given.add_argument("files", nargs="+", type=Path, metavar="FILE", help="votes")
    columns = given.add_argument_group("columns, over what their names say")
    for role in ROLES:
        more = "; several, with commas, are an annotator each" if role == "preference" else ""
        columns.add_argument(
            f"--{role}", metavar="COLUMN", help=f"of the {role}{more}" if len(role) > 1 else f"of system {role}"
        )
    given.add_argument(
        "--values", nargs="+", default=[], metavar="VALUE=MEANING", help="what a preference says: a, b, tie, failed"
    )
    given.add_argument("--people", nargs="+", default=[], metavar="PATTERN", help="names of people, e.g. 'crowd*'")
    given.add_argument("--majority", action="store_true", help="add what most people say, as an annotator")
    given.add_argument("--confidence", type=float, default=0.95, help="of the intervals (0.95)")
    given.add_argument("--out", type=Path, metavar="DIR", help="write the tables there as csv")
    return given


if __name__ == "__main__":
    parsed = parser().parse_args()
    raise SystemExit(run_command(lambda: main(parsed)))
