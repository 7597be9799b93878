"""presentations: rows of prompts and answers, made into what annotators are shown, and their words made into rows."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import polars as pl

from stages.common.errors import InputError
from stages.core.judging import (
    ORDERS,
    Answer,
    Comparer,
    Comparison,
    Grade,
    Grader,
    Order,
    Prompt,
    Submission,
    preference,
)
from stages.core.reference import check_references
from stages.schema import EPOCH_GRADE, GRADE, VERDICT

Key = tuple[str, int]  # prompt_id, sample


def prompts_by_id(prompts: pl.DataFrame) -> dict[str, Prompt]:
    """Prompts (schema.PROMPT) as annotators see them.

    Raises:
        InputError: an id stands twice, or a reference is blank.
    """
    found: dict[str, Prompt] = {}
    for row in prompts.select("id", "messages", "references", "safety").iter_rows(named=True):
        if row["id"] in found:
            raise InputError(f"{row['id']}: an id must be unique among prompts, got it twice; run `prompts` again")
        references = tuple(check_references(row["id"], row["references"]))
        found[row["id"]] = Prompt(row["id"], dialogue_text(row["messages"]), references, bool(row["safety"]))
    return found


def dialogue_text(messages: Sequence[Mapping[str, str]]) -> str:
    r"""A single turn as it is; several turns as a transcript.

    >>> dialogue_text([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}])
    'User:\nHi\n\nAssistant:\nYes?'
    """
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}:\n{turn['content']}" for turn in messages)


def answers_by_key(responses: pl.DataFrame, *, name: str, prompts: Mapping[str, Prompt]) -> dict[Key, Answer]:
    """Answers (schema.RESPONSE) of one responder, each prompt answered at least once, sorted by prompt and sample.

    Raises:
        InputError: an answer is missing, stands twice, has no text, or belongs to no prompt.
    """
    found: dict[Key, Answer] = {}
    columns = ("prompt_id", "sample", "response", "finish_reason")
    for prompt_id, sample, text, finish_reason in responses.select(columns).sort(columns[:2]).iter_rows():
        if prompt_id not in prompts:
            raise InputError(f"{name}: {prompt_id}: an answer needs its prompt, got none; run `respond` again")
        if (prompt_id, sample) in found:
            raise InputError(f"{name}: {prompt_id}: sample {sample} must stand once, got it twice; correct the answers")
        if text is None or finish_reason is None:
            raise InputError(f"{name}: {prompt_id}: an answer needs its text and finish_reason, got null; correct it")
        found[prompt_id, sample] = Answer(text, finish_reason)
    _same_items({key[0] for key in found}, set(prompts), name=name, whole="the prompts", item="the prompt")
    return found


def comparisons_of(
    *, a: Mapping[Key, Answer], b: Mapping[Key, Answer], names: tuple[str, str], prompts: Mapping[str, Prompt]
) -> list[Comparison]:
    """Every pair in both orders, by prompt, sample, order.

    Raises:
        InputError: one side has an answer that the other lacks.
    """
    _same_items(set(b), set(a), name=names[1], whole=names[0], item="(prompt, sample)")
    return [
        Comparison(prompts[key[0]], *((a[key], b[key]) if order == "ab" else (b[key], a[key])))
        for key, order in product(sorted(a), ORDERS)
    ]


def submissions_of(answers: Mapping[Key, Answer], *, prompts: Mapping[str, Prompt]) -> list[Submission]:
    """Every answer alone, by prompt and sample."""
    return [Submission(prompts[key[0]], answers[key]) for key in sorted(answers)]


def verdict_table(
    *,
    a: Mapping[Key, Answer],
    b: Mapping[Key, Answer],
    names: tuple[str, str],
    prompts: Mapping[str, Prompt],
    comparers: Mapping[str, Comparer],
) -> pl.DataFrame:
    """Show every pair in both orders to every annotator: schema.VERDICT, by prompt, sample, annotator, order.

    Raises:
        InputError: one side has an answer that the other lacks.
    """
    comparisons = comparisons_of(a=a, b=b, names=names, prompts=prompts)
    shown = [(*key, *names, order) for key, order in product(sorted(a), ORDERS)]
    return _verdicts(shown, comparisons, comparers).sort("prompt_id", "sample", "annotator", "order")


def grade_table(
    answers: Mapping[Key, Answer], *, responder: str, prompts: Mapping[str, Prompt], graders: Mapping[str, Grader]
) -> pl.DataFrame:
    """Show every answer to every annotator: schema.GRADE, sorted by prompt, sample, annotator."""
    keys = sorted(answers)
    submissions = submissions_of(answers, prompts=prompts)
    rows = [
        {"prompt_id": key[0], "sample": key[1], "responder": responder, "annotator": name, **_graded(grade)}
        for name, grade_all in graders.items()
        for key, grade in zip(keys, grade_all(submissions), strict=True)
    ]
    return pl.DataFrame(rows, schema=GRADE).sort("prompt_id", "sample", "annotator")


def epoch_answers(
    responses: pl.DataFrame, *, responder: str, prompts: Mapping[str, Prompt]
) -> dict[int, dict[Key, Answer]]:
    """Answers (schema.EPOCH_RESPONSE) by epoch.

    Raises:
        InputError: those of an epoch are not what `answers_by_key` asks for.
    """
    return {
        epoch: answers_by_key(
            responses.filter(pl.col("epoch") == epoch), name=f"{responder}, epoch {epoch}", prompts=prompts
        )
        for epoch in sorted(responses["epoch"].unique().to_list())
    }


def epoch_submissions(
    answers: Mapping[int, Mapping[Key, Answer]], *, prompts: Mapping[str, Prompt]
) -> list[Submission]:
    """Every epoch's answers alone, by epoch, prompt and sample."""
    return [one for given in answers.values() for one in submissions_of(given, prompts=prompts)]


def epoch_comparisons(
    answers: Mapping[int, Mapping[Key, Answer]], *, prompts: Mapping[str, Prompt]
) -> list[Comparison]:
    """Any two epochs' answers in both orders, by epochs, prompt, sample and order."""
    return [
        one
        for a, b in combinations(answers, 2)
        for one in comparisons_of(a=answers[a], b=answers[b], names=(epoch_name(a), epoch_name(b)), prompts=prompts)
    ]


def epoch_grade_table(
    answers: Mapping[int, Mapping[Key, Answer]],
    *,
    responder: str,
    prompts: Mapping[str, Prompt],
    graders: Mapping[str, Grader],
) -> pl.DataFrame:
    """Every epoch's answers, graded at once: schema.EPOCH_GRADE, by epoch, prompt, sample, annotator."""
    submissions = epoch_submissions(answers, prompts=prompts)
    keys = [(epoch, *key) for epoch, given in answers.items() for key in sorted(given)]
    rows = [
        {
            "epoch": epoch, "prompt_id": prompt_id, "sample": sample, "responder": responder, "annotator": name,
            **_graded(grade),
        }
        for name, grade_all in graders.items()
        for (epoch, prompt_id, sample), grade in zip(keys, grade_all(submissions), strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=EPOCH_GRADE).sort("epoch", "prompt_id", "sample", "annotator")


def epoch_verdict_table(
    answers: Mapping[int, Mapping[Key, Answer]], *, prompts: Mapping[str, Prompt], comparers: Mapping[str, Comparer]
) -> pl.DataFrame:
    """Any two epochs' answers, compared at once: schema.VERDICT, contestants by `epoch_name`."""
    shown = [
        (*key, epoch_name(a), epoch_name(b), order)
        for a, b in combinations(answers, 2)
        for key, order in product(sorted(answers[a]), ORDERS)
    ]
    return _verdicts(shown, epoch_comparisons(answers, prompts=prompts), comparers)


def epoch_name(epoch: int) -> str:
    """An epoch as a contestant."""
    return f"epoch {epoch}"


def _verdicts(
    shown: Sequence[tuple[str, int, str, str, Order]],
    comparisons: list[Comparison],
    comparers: Mapping[str, Comparer],
) -> pl.DataFrame:
    """What every annotator says of comparisons, each of a prompt, sample, a, b and order: schema.VERDICT."""
    rows = [
        {
            "prompt_id": prompt_id, "sample": sample, "a": a, "b": b, "annotator": name, "order": order,
            "preference": preference(choice.position, order),
            "unscored_reason": choice.unscored_reason,
            **choice.receipt._asdict(),
        }
        for name, compare in comparers.items()
        for (prompt_id, sample, a, b, order), choice in zip(shown, compare(comparisons), strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=VERDICT)


def _graded(grade: Grade) -> dict[str, Any]:
    return {**grade._asdict(), **grade.receipt._asdict()}


def _same_items(found: set[Any], wanted: set[Any], *, name: str, whole: str, item: str) -> None:
    for missing, side in ((wanted - found, name), (found - wanted, whole)):
        if missing:
            first = min(missing)
            raise InputError(
                f"{side}: must answer {item} {first!r}, got {len(missing)} unanswered; run it again with the same "
                f"prompts and n_samples as {whole if side == name else name}"
            )
