"""select_checkpoint: keep the candidate epoch whose answers to the dev prompts are judged best.

Reads data/generate/<arm>.parquet (schema.EPOCH_RESPONSE), data/generate/<arm>.perplexity.parquet (schema.PERPLEXITY),
data/prompts/dev.parquet (schema.PROMPT) and models/sft/<arm>/epoch_NN/.
Writes models/selected/<arm>/, a complete model folder; data/select_checkpoint/<arm>.standing.parquet (schema.STANDING),
what each epoch is worth, how far that is behind the best, and which was taken; and the verdicts behind it:
data/select_checkpoint/<arm>.parquet (schema.EPOCH_GRADE) with `by: grade`, <arm>.verdicts.parquet (schema.VERDICT) with
`by: pairs`, else empty.

LIMA s3 and Appendix B: perplexity rises while quality does, so the checkpoint is chosen by quality on the dev prompts;
there by hand, here by annotators and a written rule, which is ours (stages/core/checkpoints.py): the earliest epoch
within one standard error of the best. Where none applies to a dev prompt (`reference` without references),
that rule takes the earliest candidate.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import polars as pl
from pydantic import Field

from stages.common.errors import InputError
from stages.common.files import empty_table, first_line, read_table, write_table
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.checkpoints import epoch_taken, standing_by_grade, standing_by_pairs, standing_by_perplexity
from stages.core.judging import Answer, Comparer, Grader, Prompt
from stages.core.presentations import (
    Key,
    epoch_answers,
    epoch_comparisons,
    epoch_grade_table,
    epoch_submissions,
    epoch_verdict_table,
    prompts_by_id,
)
from stages.runtime.annotators import (
    FLAGS,
    Annotators,
    check_answered,
    comparer,
    grader,
    keep_scored,
    tell_costs,
)
from stages.runtime.model import check_model_folder
from stages.schema import EPOCH_GRADE, EPOCH_RESPONSE, PERPLEXITY, PROMPT, STANDING, VERDICT


class Params(Section):
    """By what, and by whom, candidate epochs are judged."""

    by: Literal["grade", "pairs", "perplexity"]
    annotators: Annotated[list[str], Field(min_length=1)]


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
    frames: Frames,
    params: Params,
    *,
    arm: str,
    graders: Mapping[str, Grader] | None = None,
    comparers: Mapping[str, Comparer] | None = None,
) -> Selected:
    """Judge every epoch's answers and choose.

    Args:
        frames: what is read.
        params: what it is chosen by.
        arm: name of the arm.
        graders: the annotators, needed with `by: grade`.
        comparers: the annotators, needed with `by: pairs`.

    Raises:
        InputError: there is no answer, or a prompt is not answered.
        JudgeError: more than half of an annotator's grades or verdicts failed.
    """
    if frames.responses.is_empty():
        raise InputError(
            f"data/generate/{arm}.parquet: must hold answers of the candidate epochs, got none; run `generate`"
        )
    epochs = sorted(frames.responses["epoch"].unique().to_list())
    prompts, answers = _asked(frames, arm)
    grades, verdicts = empty_table(EPOCH_GRADE), empty_table(VERDICT)
    if params.by == "perplexity":
        standing = standing_by_perplexity(frames.perplexity, epochs)
    elif params.by == "pairs":
        assert comparers is not None
        verdicts = epoch_verdict_table(answers, prompts=prompts, comparers=comparers)
        check_answered(verdicts, path=f"data/select_checkpoint/{arm}.verdicts.parquet")
        standing = standing_by_pairs(verdicts, epochs)
    else:
        assert graders is not None
        grades = epoch_grade_table(answers, responder=arm, prompts=prompts, graders=graders)
        check_answered(grades, path=f"data/select_checkpoint/{arm}.parquet")
        standing = standing_by_grade(grades, epochs)
    return Selected(standing, grades, verdicts)


def _asked(frames: Frames, arm: str) -> tuple[dict[str, Prompt], dict[int, dict[Key, Answer]]]:
    prompts = prompts_by_id(frames.prompts)
    return prompts, epoch_answers(frames.responses, responder=arm, prompts=prompts)


def main(arm: str, *, dry_run: bool = False, retry_failed: bool = False) -> None:
    """Select one arm's checkpoint; annotators.FLAGS says what the switches do."""
    params = load_params("select_checkpoint", Params)
    annotators = load_params("annotators", Annotators)
    frames = Frames(
        prompts=read_table(Path("data/prompts/dev.parquet"), PROMPT),
        responses=read_table(Path(f"data/generate/{arm}.parquet"), EPOCH_RESPONSE),
        perplexity=read_table(Path(f"data/generate/{arm}.perplexity.parquet"), PERPLEXITY),
    )
    folder = Path("data/select_checkpoint")
    named = params.annotators if params.by != "perplexity" else []
    graders = {name: grader(name, annotators) for name in named if params.by == "grade"}
    comparers = {name: comparer(name, annotators) for name in named if params.by == "pairs"}
    if dry_run:
        prompts, answers = _asked(frames, arm)
        tell_costs(
            {**graders, **comparers},
            epoch_comparisons(answers, prompts=prompts) if comparers else [],
            epoch_submissions(answers, prompts=prompts) if graders else [],
        )
        return
    if retry_failed:
        path, schema = (f"{arm}.verdicts.parquet", VERDICT) if comparers else (f"{arm}.parquet", EPOCH_GRADE)
        print(f"{folder / path}: {keep_scored(read_table(folder / path, schema))} unscored, asked for again")
    selected = run(frames, params, arm=arm, graders=graders, comparers=comparers)
    epoch = epoch_taken(selected.standing)
    if selected.standing["quality"].is_null().all() and selected.standing.height > 1:
        judged = f"{', '.join(map(repr, params.annotators))}: fewer than two of the dev prompts are judged"
        why = "no perplexity was measured" if params.by == "perplexity" else judged
        print(
            f"warning: {arm}: {why}, so the earliest candidate epoch, {epoch}, is taken; name another "
            f"select_checkpoint.annotators, or another select_checkpoint.by",
            file=sys.stderr,
        )
    copy_model(Path(f"models/sft/{arm}/epoch_{epoch:02d}"), Path(f"models/selected/{arm}"))
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
    run_stage(main, key="arm", flags=FLAGS)
