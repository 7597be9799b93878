"""judge: compare the judged arm with one opponent, pair by pair and in both orders.

Reads data/respond/<judge.arm>.parquet, data/respond_opponent/<opponent>.parquet (schema.RESPONSE) and
data/prompts/test.parquet (schema.PROMPT).
Writes data/judge/<opponent>.parquet (schema.VERDICT): every (prompt, sample), annotator of judge.annotators and order,
sorted by prompt, sample, annotator, order. `preference` is about contestants: a is the arm, b the opponent.

LIMA s4.1: one screen with the prompt and answers A and B, and whether A, B or neither is significantly better; people
and models get the same text (stages/templates/judging/judge.txt). Both orders are our addition: judges favour
positions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import polars as pl
from pydantic import Field

from stages.common.files import read_table, write_table
from stages.common.main import run_stage
from stages.common.params import check_named, load_params
from stages.common.section import Section
from stages.core.judging import Answer, Comparer, Comparison, Prompt
from stages.core.presentations import Key, answers_by_key, comparisons_of, prompts_by_id, verdict_table
from stages.runtime.annotators import FLAGS, Annotators, check_answered, comparer, keep_scored, tell_costs
from stages.schema import PROMPT, RESPONSE, VERDICT


class Params(Section):
    """Who is judged, and by whom."""

    arm: Annotated[str, Field(min_length=1)]
    annotators: Annotated[list[str], Field(min_length=1)]


class Frames(NamedTuple):
    """What is read."""

    prompts: pl.DataFrame
    arm: pl.DataFrame
    opponent: pl.DataFrame


class Tables(NamedTuple):
    """What is written."""

    verdicts: pl.DataFrame


class _Sides(NamedTuple):
    """Whose answers to what are compared."""

    a: Mapping[Key, Answer]
    b: Mapping[Key, Answer]
    names: tuple[str, str]
    prompts: Mapping[str, Prompt]


def run(frames: Frames, params: Params, *, opponent: str, comparers: Mapping[str, Comparer]) -> Tables:
    """Judge every pair; `comparers` are the annotators, the only ones that may reach outside.

    Raises:
        InputError: tables do not belong together.
        JudgeError: more than half of an annotator's verdicts failed.
    """
    verdicts = verdict_table(**_sides(frames, params, opponent)._asdict(), comparers=comparers)
    check_answered(verdicts, path=f"data/judge/{opponent}.parquet")
    return Tables(verdicts)


def pairs(frames: Frames, params: Params, *, opponent: str) -> list[Comparison]:
    """What the annotators are shown.

    Raises:
        InputError: tables do not belong together.
    """
    return comparisons_of(**_sides(frames, params, opponent)._asdict())


def _sides(frames: Frames, params: Params, opponent: str) -> _Sides:
    prompts = prompts_by_id(frames.prompts)
    return _Sides(
        a=answers_by_key(frames.arm, name=f"data/respond/{params.arm}.parquet", prompts=prompts),
        b=answers_by_key(frames.opponent, name=f"data/respond_opponent/{opponent}.parquet", prompts=prompts),
        names=(params.arm, opponent),
        prompts=prompts,
    )


def main(opponent: str, *, dry_run: bool = False, retry_failed: bool = False) -> None:
    """Judge one opponent; annotators.FLAGS says what the switches do."""
    params = load_params("judge", Params)
    check_named(params.arm, "arms", where="judge.arm")
    annotators = load_params("annotators", Annotators)
    frames = Frames(
        prompts=read_table(Path("data/prompts/test.parquet"), PROMPT),
        arm=read_table(Path(f"data/respond/{params.arm}.parquet"), RESPONSE),
        opponent=read_table(Path(f"data/respond_opponent/{opponent}.parquet"), RESPONSE),
    )
    comparers = {name: comparer(name, annotators) for name in params.annotators}
    path = Path(f"data/judge/{opponent}.parquet")
    if dry_run:
        tell_costs(comparers, pairs(frames, params, opponent=opponent), [])
        return
    if retry_failed:
        print(f"{path}: {keep_scored(read_table(path, VERDICT))} unscored, asked for again")
    tables = run(frames, params, opponent=opponent, comparers=comparers)
    write_table(path, tables.verdicts, VERDICT)


if __name__ == "__main__":
    run_stage(main, key="opponent", flags=FLAGS)
