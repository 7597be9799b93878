"""The section `annotators` of params.yaml, and the annotators it names.

The texts that models get are files under stages/templates/, read from the project's root and listed as deps:
judge.txt and judge_reply.txt for comparisons; grade.txt, grade_reply.txt and grade_reply_safety.txt for grades.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import ConfigDict, Field

from stages.core.judging import (
    NO_REFERENCE,
    Choice,
    Comparer,
    Comparison,
    Grade,
    Grader,
    Submission,
    compare_by_length,
    compare_by_reference,
    grade_by_reference,
)
from stages.core.replies import Reply, comparison_text, read_choice, read_grade, submission_text
from stages.core.section import Section
from stages.errors import InputError, JudgeError, ParamsError
from stages.runtime.endpoint import Endpoint, Request, ask

TEMPLATES = Path("stages/templates")
MAX_FAILED_SHARE = 0.5  # of one annotator; a table of mostly failures is no result, and as a finished out of DVC it
# would never be made again. The finer limit is score.max_unscored_share, which can change without judging anew.


class Reference(Section):
    """Compares answers with the prompt's references; stages/core/reference.py has the rule."""

    kind: Literal["reference"]


class Length(Section):
    """Prefers the longer answer."""

    kind: Literal["length"]


class OpenAI(Endpoint):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    temperature: Annotated[float, Field(ge=0, le=2)] | None  # null: not sent, for models that refuse it
    max_reply_tokens: Annotated[int, Field(ge=1)]  # reasons included; a reply cut there is unscored

    def sampling(self) -> dict[str, float | int]:
        """The arguments of chat.completions.create that shape the reply."""
        temperature = {} if self.temperature is None else {"temperature": self.temperature}
        return {**temperature, "max_completion_tokens": self.max_reply_tokens}


Annotator = Annotated[Reference | Length | OpenAI, Field(discriminator="kind")]


class Annotators(Section):
    """Annotators by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotator]

    def named(self, name: str) -> Reference | Length | OpenAI:
        """One annotator.

        Raises:
            ParamsError: there is none of that name.
        """
        if name not in self.__pydantic_extra__:
            known = ", ".join(self.__pydantic_extra__) or "nothing"
            raise ParamsError(
                f"params.yaml: annotators: must have every annotator that is used, got {name!r}; add it there, "
                f"or use one of: {known}"
            )
        return self.__pydantic_extra__[name]


def comparer(name: str, annotators: Annotators) -> Comparer:
    """The annotator of that name, ready to compare.

    Raises:
        ParamsError, InputError: it is unknown, or a template is missing.
    """
    annotator = annotators.named(name)
    if isinstance(annotator, Reference):
        return lambda comparisons: [compare_by_reference(item) for item in comparisons]
    if isinstance(annotator, Length):
        return lambda comparisons: [compare_by_length(item) for item in comparisons]
    return partial(
        _compare, annotator=annotator, desc=name, template=_template("judge.txt"), form=_template("judge_reply.txt")
    )


def grader(name: str, annotators: Annotators) -> Grader:
    """The annotator of that name, ready to grade.

    Raises:
        ParamsError, InputError: it is unknown or cannot grade, or a template is missing.
    """
    annotator = annotators.named(name)
    if isinstance(annotator, Reference):
        return lambda submissions: [grade_by_reference(item) for item in submissions]
    if isinstance(annotator, Length):
        raise ParamsError(
            f"params.yaml: annotators.{name}: a grade needs an annotator of kind reference or openai, got length, "
            f"which only compares; name another in grade.annotators and select_checkpoint.annotator"
        )
    return partial(
        _grade,
        annotator=annotator,
        desc=name,
        template=_template("grade.txt"),
        form=_template("grade_reply.txt"),
        safety_form=_template("grade_reply_safety.txt"),
    )


def check_answered(table: pl.DataFrame, *, path: str) -> None:
    """Whether enough came of every annotator that a table of verdicts or grades may be written to `path`.

    Raises:
        JudgeError: more than half of what an annotator could have given failed.
    """
    applicable = table.filter(pl.col("unscored_reason").ne_missing(NO_REFERENCE))
    for some in applicable.partition_by("annotator", maintain_order=True):
        reasons = some["unscored_reason"].drop_nulls()
        if reasons.len() > MAX_FAILED_SHARE * some.height:
            raise JudgeError(
                f"{path}: at most half may be unscored, got {reasons.len()} of {some.height} unscored by "
                f"{some['annotator'][0]!r} (mostly {reasons.mode().sort()[0]}); mend the annotator: replies that came "
                f"are kept, and `dvc repro` asks for the rest"
            )


def _compare(comparisons: list[Comparison], *, annotator: OpenAI, desc: str, template: str, form: str) -> list[Choice]:
    texts = [comparison_text(item, template=template, form=form) for item in comparisons]
    requests = [_request(text, annotator, accept=_has_choice) for text in texts]
    return [read_choice(reply) for reply in ask(requests, annotator, desc=desc)]


def _grade(
    submissions: list[Submission], *, annotator: OpenAI, desc: str, template: str, form: str, safety_form: str
) -> list[Grade]:
    texts = [submission_text(item, template=template, form=form, safety_form=safety_form) for item in submissions]
    at_stake = [item.prompt.is_safety for item in submissions]
    requests = [
        _request(text, annotator, accept=partial(_has_grade, is_safety=is_safety))
        for text, is_safety in zip(texts, at_stake, strict=True)
    ]
    replies = ask(requests, annotator, desc=desc)
    return [read_grade(reply, is_safety=is_safety) for reply, is_safety in zip(replies, at_stake, strict=True)]


def _has_choice(reply: Reply) -> bool:
    return read_choice(reply).position is not None


def _has_grade(reply: Reply, *, is_safety: bool) -> bool:
    return read_grade(reply, is_safety=is_safety).helpfulness is not None


def _request(text: str, annotator: OpenAI, *, accept: Callable[[Reply], bool]) -> Request:
    return Request([{"role": "user", "content": text}], annotator.sampling(), accept)


def _template(name: str) -> str:
    path = TEMPLATES / name
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({type(error).__name__}); restore it from git") from None
