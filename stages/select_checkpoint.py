"""select_checkpoint: keep the candidate epoch whose answers to the dev prompts are judged best.

Reads data/generate/<arm>.parquet (schema.EPOCH_RESPONSE), data/generate/<arm>.perplexity.parquet (schema.PERPLEXITY),
data/prompts/dev.parquet (schema.PROMPT) and models/sft/<arm>/epoch_NN/.
Writes models/selected/<arm>/, a complete model folder; data/select_checkpoint/<arm>.standing.parquet (schema.STANDING),
what each epoch is worth, how far that is behind the best, and which was taken; and the verdicts behind it:
data/select_checkpoint/<arm>.parquet (schema.EPOCH_GRADE) with `by: grade`, <arm>.verdicts.parquet (schema.VERDICT) with
`by: pairs`, else empty.

LIMA s3 and Appendix B: perplexity rises while quality does, so the checkpoint is chosen by quality on the dev prompts;
there by hand, here by one annotator and a written rule, which is ours (stages/core/checkpoints.py): the earliest epoch
within one standard error of the best. Where the annotator applies to no dev prompt (`reference` without references),
that rule takes the earliest candidate.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import polars as pl
from pydantic import Field

from stages.core.checkpoints import epoch_taken, standing_by_grade, standing_by_pairs, standing_by_perplexity
from stages.core.judging import Comparer, Grader
from stages.core.presentations import epoch_grade_table, epoch_verdict_table, prompts_by_id
from stages.core.section import Section
from stages.errors import InputError
from stages.runtime.annotators import Annotators, check_answered, comparer, grader
from stages.runtime.files import empty_table, first_line, read_table, write_table
from stages.runtime.main import run_stage
from stages.runtime.model import check_model_folder
from stages.runtime.params import load_params
from stages.schema import EPOCH_GRADE, EPOCH_RESPONSE, PERPLEXITY, PROMPT, STANDING, VERDICT


class Params(Section):
    """By what, and by whom, candidate epochs are judged."""

    by: Literal["grade", "pairs", "perplexity"]
    annotator: Annotated[str, Field(min_length=1)]


class Frames(NamedTuple):
    """What is read."""

    prompts: pl.DataFrame
    responses: pl.DataFrame
    perplexity: pl.DataFrame


class Selected(NamedTuple):
    """How the candidate epochs stand, with the verdicts that say so."""

    standing: pl.DataFrame
    grades: pl.DataFrame
    verdicts: pl.DataFrame


def run(
    frames: Frames, params: Params, *, arm: str, grade: Grader | None = None, compare: Comparer | None = None
) -> Selected:
    """Judge every epoch's answers and choose.

    Args:
        frames: what is read.
        params: what it is chosen by.
        arm: name of the arm.
        grade: the annotator, needed with `by: grade`.
        compare: the annotator, needed with `by: pairs`.

    Raises:
        InputError: there is no answer, or a prompt is not answered.
        JudgeError: more than half of the annotator's grades or verdicts failed.
    """
    if frames.responses.is_empty():
        raise InputError(
            f"data/generate/{arm}.parquet: must hold answers of the candidate epochs, got none; run `generate`"
        )
    epochs = sorted(frames.responses["epoch"].unique().to_list())
    prompts = prompts_by_id(frames.prompts)
    grades, verdicts = empty_table(EPOCH_GRADE), empty_table(VERDICT)
    if params.by == "perplexity":
        standing = standing_by_perplexity(frames.perplexity, epochs)
    elif params.by == "pairs":
        assert compare is not None
        verdicts = epoch_verdict_table(
            frames.responses, responder=arm, prompts=prompts, comparers={params.annotator: compare}
        )
        check_answered(verdicts, path=f"data/select_checkpoint/{arm}.verdicts.parquet")
        standing = standing_by_pairs(verdicts, epochs)
    else:
        assert grade is not None
        grades = epoch_grade_table(frames.responses, responder=arm, prompts=prompts, graders={params.annotator: grade})
        check_answered(grades, path=f"data/select_checkpoint/{arm}.parquet")
        standing = standing_by_grade(grades, epochs)
    return Selected(standing, grades, verdicts)


def main(arm: str) -> None:
    """Select one arm's checkpoint."""
    params = load_params("select_checkpoint", Params)
    annotators = load_params("annotators", Annotators)
    frames = Frames(
        prompts=read_table(Path("data/prompts/dev.parquet"), PROMPT),
        responses=read_table(Path(f"data/generate/{arm}.parquet"), EPOCH_RESPONSE),
        perplexity=read_table(Path(f"data/generate/{arm}.perplexity.parquet"), PERPLEXITY),
    )
    selected = run(
        frames,
        params,
        arm=arm,
        grade=grader(params.annotator, annotators) if params.by == "grade" else None,
        compare=comparer(params.annotator, annotators) if params.by == "pairs" else None,
    )
    epoch = epoch_taken(selected.standing)
    if selected.standing["quality"].is_null().all() and selected.standing.height > 1:
        judged = f"{params.annotator!r} judges fewer than two of the dev prompts"
        why = "no perplexity was measured" if params.by == "perplexity" else judged
        print(
            f"warning: {arm}: {why}, so the earliest candidate epoch, {epoch}, is taken; name another "
            f"select_checkpoint.annotator, or another select_checkpoint.by",
            file=sys.stderr,
        )
    copy_model(Path(f"models/sft/{arm}/epoch_{epoch:02d}"), Path(f"models/selected/{arm}"))
    folder = Path("data/select_checkpoint")
    write_table(folder / f"{arm}.standing.parquet", selected.standing, STANDING)
    write_table(folder / f"{arm}.parquet", selected.grades, EPOCH_GRADE)
    write_table(folder / f"{arm}.verdicts.parquet", selected.verdicts, VERDICT)


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
