"""select_checkpoint: keep the candidate epoch whose answers to the dev prompts are graded best.

Reads data/generate/<arm>.parquet (schema.EPOCH_RESPONSE), data/prompts/dev.parquet (schema.PROMPT) and
models/sft/<arm>/epoch_NN/.
Writes models/selected/<arm>/, a complete model folder, and data/select_checkpoint/<arm>.parquet (schema.EPOCH_GRADE),
sorted by epoch, prompt, sample. Which epoch was taken follows from the grades (stages/core/checkpoints.py).

LIMA s3 and Appendix B: perplexity rises while quality does, so the checkpoint is chosen by quality on the dev prompts;
there by hand, here by one annotator and a written rule, which is ours: the earliest epoch within one standard error of
the best. Where the annotator applies to no dev prompt (`reference` without references), that rule takes the earliest
candidate.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import polars as pl
from pydantic import Field

from stages.core.checkpoints import choose_epoch
from stages.core.judging import Grader
from stages.core.presentations import epoch_grade_table, prompts_by_id
from stages.core.section import Section
from stages.errors import InputError
from stages.runtime.annotators import Annotators, check_answered, grader
from stages.runtime.files import first_line, read_table, write_table
from stages.runtime.main import run_stage
from stages.runtime.model import check_model_folder
from stages.runtime.params import load_params
from stages.schema import EPOCH_GRADE, EPOCH_RESPONSE, PROMPT


class Params(Section):
    """By whom candidate epochs are graded."""

    annotator: Annotated[str, Field(min_length=1)]


class Frames(NamedTuple):
    """What is read."""

    prompts: pl.DataFrame
    responses: pl.DataFrame


class Selected(NamedTuple):
    """The grades of every candidate epoch, and the epoch taken."""

    grades: pl.DataFrame
    epoch: int


def run(frames: Frames, params: Params, *, arm: str, grade: Grader) -> Selected:
    """Grade every epoch's answers and choose.

    Raises:
        InputError: there is no answer, or a prompt is not answered.
        JudgeError: more than half of the annotator's grades failed.
    """
    if frames.responses.is_empty():
        raise InputError(
            f"data/generate/{arm}.parquet: must hold answers of the candidate epochs, got none; run `generate`"
        )
    prompts = prompts_by_id(frames.prompts)
    graders = {params.annotator: grade}
    grades = epoch_grade_table(frames.responses, responder=arm, prompts=prompts, graders=graders)
    check_answered(grades, path=f"data/select_checkpoint/{arm}.parquet")
    return Selected(grades, choose_epoch(grades))


def main(arm: str) -> None:
    """Select one arm's checkpoint."""
    params = load_params("select_checkpoint", Params)
    annotators = load_params("annotators", Annotators)
    frames = Frames(
        prompts=read_table(Path("data/prompts/dev.parquet"), PROMPT),
        responses=read_table(Path(f"data/generate/{arm}.parquet"), EPOCH_RESPONSE),
    )
    selected = run(frames, params, arm=arm, grade=grader(params.annotator, annotators))
    if selected.grades["helpfulness"].is_null().all():
        print(
            f"warning: {arm}: {params.annotator!r} applies to no dev prompt, so the earliest candidate epoch, "
            f"{selected.epoch}, is taken; name another select_checkpoint.annotator",
            file=sys.stderr,
        )
    copy_model(Path(f"models/sft/{arm}/epoch_{selected.epoch:02d}"), Path(f"models/selected/{arm}"))
    write_table(Path(f"data/select_checkpoint/{arm}.parquet"), selected.grades, EPOCH_GRADE)


def copy_model(source: Path, target: Path) -> None:
    """Make `target` the model folder `source`, whole or not at all; files are hard links where the disk allows.

    Raises:
        InputError: `source` is no complete model folder, or `target` cannot be written.
    """
    check_model_folder(source)
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, copy_function=_link_or_copy)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(f"{target}: cannot be written, {first_line(error)}; free space or mend its rights") from error


def _link_or_copy(source: str, target: str) -> None:
    """A hard link to the file itself, not to a symbolic link into the DVC cache; a copy on another disk."""
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


if __name__ == "__main__":
    run_stage(main, key="arm")
