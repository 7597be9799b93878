"""grade: judge every answer of one arm on its own.

Reads data/respond/<arm>.parquet (schema.RESPONSE) and data/prompts/test.parquet (schema.PROMPT).
Writes data/grade/<arm>.parquet (schema.GRADE): every (prompt, sample) and annotator of grade.annotators, sorted so.

LIMA s4.3 (Fail, Pass, Excellent; safe or not) and s5 (helpfulness from 1 to 6), in our words:
stages/templates/grade*.txt. One reply gives all of them, which is ours. The `reference` annotator gives 6 and
Excellent to a right answer, 3 and Pass to one that contains an accepted value, 1 and Fail to any other, and nothing on
safety; ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import polars as pl
from pydantic import Field

from stages.core.judging import Grader
from stages.core.presentations import answers_by_key, grade_table, prompts_by_id
from stages.core.section import Section
from stages.runtime.annotators import Annotators, check_answered, grader
from stages.runtime.files import read_table, write_table
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
from stages.schema import GRADE, PROMPT, RESPONSE


class Params(Section):
    """By whom answers are graded."""

    annotators: Annotated[list[str], Field(min_length=1)]


class Frames(NamedTuple):
    """What is read."""

    prompts: pl.DataFrame
    responses: pl.DataFrame


class Tables(NamedTuple):
    """What is written."""

    grades: pl.DataFrame


def run(frames: Frames, *, arm: str, graders: Mapping[str, Grader]) -> Tables:
    """Grade every answer; `graders` are the annotators, the only ones that may reach outside.

    Raises:
        InputError: tables do not belong together.
        JudgeError: more than half of an annotator's grades failed.
    """
    prompts = prompts_by_id(frames.prompts)
    answers = answers_by_key(frames.responses, name=f"data/respond/{arm}.parquet", prompts=prompts)
    grades = grade_table(answers, responder=arm, prompts=prompts, graders=graders)
    check_answered(grades, path=f"data/grade/{arm}.parquet")
    return Tables(grades)


def main(arm: str) -> None:
    """Grade one arm."""
    params = load_params("grade", Params)
    annotators = load_params("annotators", Annotators)
    frames = Frames(
        prompts=read_table(Path("data/prompts/test.parquet"), PROMPT),
        responses=read_table(Path(f"data/respond/{arm}.parquet"), RESPONSE),
    )
    tables = run(frames, arm=arm, graders={name: grader(name, annotators) for name in params.annotators})
    write_table(Path(f"data/grade/{arm}.parquet"), tables.grades, GRADE)


if __name__ == "__main__":
    run_stage(main, key="arm")
