"""grade: judge every answer of one arm on its own.

Reads data/respond/<arm>.parquet (schema.RESPONSE) and data/prompts/test.parquet (schema.PROMPT).
Writes data/grade/<arm>.parquet (schema.GRADE): every (prompt, sample) and annotator of grade.annotators, sorted so.

LIMA s4.3 (Fail, Pass, Excellent; safe or not) and s5 (helpfulness from 1 to 6), in our words:
stages/templates/judging/grade*.txt. One reply gives all of them, which is ours. The `reference` annotator gives 6 and
Excellent to a right answer, 3 and Pass to one that contains an accepted value, 1 and Fail to any other, and nothing on
safety; ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import polars as pl
from pydantic import Field

from stages.common.files import read_table, write_table
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.judging import Answer, Grader, Prompt
from stages.core.presentations import Key, answers_by_key, grade_table, prompts_by_id, submissions_of
from stages.runtime.annotators import FLAGS, Annotators, check_answered, grader, keep_scored, tell_costs
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
    prompts, answers = _asked(frames, arm)
    grades = grade_table(answers, responder=arm, prompts=prompts, graders=graders)
    check_answered(grades, path=f"data/grade/{arm}.parquet")
    return Tables(grades)


def _asked(frames: Frames, arm: str) -> tuple[dict[str, Prompt], dict[Key, Answer]]:
    prompts = prompts_by_id(frames.prompts)
    return prompts, answers_by_key(frames.responses, name=f"data/respond/{arm}.parquet", prompts=prompts)


def main(arm: str, *, dry_run: bool = False, retry_failed: bool = False) -> None:
    """Grade one arm; annotators.FLAGS says what the switches do."""
    params = load_params("grade", Params)
    annotators = load_params("annotators", Annotators)
    frames = Frames(
        prompts=read_table(Path("data/prompts/test.parquet"), PROMPT),
        responses=read_table(Path(f"data/respond/{arm}.parquet"), RESPONSE),
    )
    graders = {name: grader(name, annotators) for name in params.annotators}
    path = Path(f"data/grade/{arm}.parquet")
    if dry_run:
        prompts, answers = _asked(frames, arm)
        tell_costs(graders, [], submissions_of(answers, prompts=prompts))
        return
    if retry_failed:
        print(f"{path}: {keep_scored(read_table(path, GRADE))} unscored, asked for again")
    tables = run(frames, arm=arm, graders=graders)
    write_table(path, tables.grades, GRADE)


if __name__ == "__main__":
    run_stage(main, key="arm", flags=FLAGS)
