"""compare: tell whether two runs of the project differ, on the test prompts that both have answered.

Reads, of two git revisions (branches, tags, commits, experiments' names, or `workspace`), params.yaml,
data/prompts/test.parquet (PROMPT), data/respond/<arm>.parquet (RESPONSE), data/grade/<arm>.parquet (GRADE) and
data/judge/<opponent>.parquet (VERDICT), from DVC's cache or remote: nothing is checked out.
Writes nothing; prints, for every arm, opponent and annotator that both runs have, the mean of each run, the second
minus the first with its interval, the smallest true difference that so many prompts show in 80 % of runs, and how
likely a difference as large as this one is by chance (sign-flip test over prompts).

    python -m stages.compare HEAD~1
    python -m stages.compare main one-judge

Measures: `exact`, the share of checkable prompts answered right; `helpfulness`, 1 to 6; `preferred`, how often the
judged arm is preferred to an opponent, a tie or a pair whose orders disagree being half. A prompt counts where its id
and text are the same in both runs; several samples are averaged first. Many measures are many tests: of 20 without any
difference one is below .05.

Ours; the test is that of stages/core/significance.py, intervals are made by `score` of params.yaml.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from stages.common.errors import InputError
from stages.common.main import run_command
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.accuracy import measure_answers
from stages.core.intervals import Intervals
from stages.core.preferences import preference_values, resolve
from stages.core.presentations import answers_by_key, prompts_by_id
from stages.core.score_tables import POWER
from stages.core.significance import Compared, compare
from stages.runtime.revisions import WORKSPACE, Revision, revisions
from stages.schema import GRADE, PROMPT, RESPONSE, VERDICT


class Score(Section, extra="ignore"):
    """How intervals are made: section `score`."""

    seed: int
    n_bootstrap: int
    confidence: float


class Measure(NamedTuple):
    """What is compared."""

    name: str  # exact, helpfulness, preferred
    of: str  # an arm, or the judged arm and an opponent
    annotator: str


SCALES = {"exact": (0.0, 1.0), "helpfulness": (1.0, 6.0), "preferred": (0.0, 1.0)}
Values = dict[Measure, pl.DataFrame]  # prompt_id, value


class Run(NamedTuple):
    """What one revision holds."""

    name: str
    prompts: pl.DataFrame  # PROMPT
    values: Values


def run(first: Run, second: Run, intervals: Intervals) -> tuple[dict[Measure, Compared], list[str]]:
    """Compare everything that both runs measure; with sentences on what is left out.

    Raises:
        InputError: the runs share no test prompt, or no measure.
    """
    texts = [dict(one.prompts.select("id", "messages").iter_rows()) for one in (first, second)]
    same = [key for key in texts[0] if texts[1].get(key) == texts[0][key]]
    of = " and ".join(f"{len(some):,} in {one.name}" for some, one in zip(texts, (first, second), strict=True))
    notes = [f"{len(same):,} test prompts are the same, of {of}"]
    if not same:
        raise InputError(
            f"{first.name}, {second.name}: must share test prompts, got none; compare runs on the same ones"
        )
    found = {}
    for measure in [key for key in first.values if key in second.values]:
        some = [one.values[measure].filter(pl.col("prompt_id").is_in(same)) for one in (first, second)]
        compared = compare(*some, scale=SCALES[measure.name], intervals=intervals, power=POWER)
        if compared is not None:
            found[measure] = compared
    if not found:
        raise InputError(
            f"{first.name}, {second.name}: must share an arm, opponent or annotator, got "
            f"{_names(first)} and {_names(second)}; compare runs that do"
        )
    left = {key for one, other in ((first, second), (second, first)) for key in one.values.keys() - other.values.keys()}
    notes += [f"only one run has {_told(key)}" for key in sorted(left)]
    return found, notes


def read_run(revision: Revision) -> Run:
    """Everything that is compared of one revision.

    Raises:
        InputError: its parameters name no arms, or a table cannot be had.
    """
    params = revision.params()
    try:
        arms, opponents = list(params["arms"]), list(params["opponents"])
    except (KeyError, TypeError):
        raise InputError(
            f"params.yaml of {revision.name}: must have arms and opponents, got neither; name a revision of the project"
        ) from None
    test = revision.table("data/prompts/test.parquet", PROMPT)
    values: Values = {}
    for arm in arms:
        values |= _of_arm(revision, arm, test)
    for opponent in opponents:
        verdicts = revision.table(f"data/judge/{opponent}.parquet", VERDICT)
        pairs = preference_values(resolve(verdicts))
        for (arm, annotator), some in pairs.partition_by("a", "annotator", as_dict=True).items():
            values[Measure("preferred", f"{arm} to {opponent}", annotator)] = some.select("prompt_id", "value")
    return Run(revision.name, test, values)


def _of_arm(revision: Revision, arm: str, test: pl.DataFrame) -> Values:
    prompts = prompts_by_id(test)
    path = f"data/respond/{arm}.parquet"
    answers = answers_by_key(revision.table(path, RESPONSE), name=f"{path} of {revision.name}", prompts=prompts)
    measured = measure_answers(answers, prompts)
    values = {Measure("exact", arm, "-"): measured.select("prompt_id", value="exact")} if measured.height else {}
    grades = revision.table(f"data/grade/{arm}.parquet", GRADE).drop_nulls("helpfulness")
    for (annotator,), some in grades.partition_by("annotator", as_dict=True).items():
        graded = some.select("prompt_id", value=pl.col("helpfulness").cast(pl.Float64))
        values[Measure("helpfulness", arm, annotator)] = graded
    return values


def table(found: Mapping[Measure, Compared], names: Sequence[str]) -> list[str]:
    """Lines for a terminal."""
    rows = [["measure", "of", "by", *names, "difference", "interval", "detectable", "p", "prompts"]]
    order = {name: place for place, name in enumerate(SCALES)}
    for measure, one in sorted(found.items(), key=lambda item: (order[item[0].name], item[0])):
        n, *numbers = one.difference
        difference, low, high = (f"{number:+.3f}" for number in numbers)
        means = (f"{one.first:.3f}", f"{one.second:.3f}")
        least = "-" if one.detectable is None else f"{one.detectable:.3f}"
        rows.append([*measure, *means, difference, f"[{low}, {high}]", least, _p(one.p_value), f"{n:,}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Words to the left, numbers to the right."""
    return [
        cell.ljust(width) if place < len(Measure._fields) else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _told(measure: Measure) -> str:
    return f"{measure.name} of {measure.of}" + ("" if measure.annotator == "-" else f" by {measure.annotator}")


def _names(one: Run) -> str:
    return ", ".join(_told(key) for key in sorted(one.values)[:4]) or "nothing"


def main(first: str, second: str) -> None:
    """Compare two revisions."""
    score = load_params("score", Score)
    intervals = Intervals(score.seed, score.n_bootstrap, score.confidence)
    with revisions(first, second) as (one, other):
        found, notes = run(read_run(one), read_run(other), intervals)
    print("\n".join([*notes, "", *table(found, [first, second])]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m stages.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", metavar="REV1", help="a git revision, or an experiment's name")
    parser.add_argument("second", metavar="REV2", nargs="?", default=WORKSPACE, help="another (the workspace)")
    arguments = parser.parse_args()
    raise SystemExit(run_command(lambda: main(arguments.first, arguments.second)))
