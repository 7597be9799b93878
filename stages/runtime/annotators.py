"""The section `annotators` of params.yaml, and the annotators it names.

The texts that models get are files under stages/templates/, read from the project's root and listed as deps:
judge.txt for comparisons, grade.txt for grades; the form of the reply stands apart, in *_reply*.txt, for lines of text
and for structured output.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import ConfigDict, Field

from stages.common.errors import InputError, JudgeError, ParamsError
from stages.common.section import Section
from stages.core.judging import (
    NO_REFERENCE,
    Choice,
    Comparer,
    Comparison,
    Grade,
    Grader,
    Receipt,
    Submission,
    compare_by_length,
    compare_by_reference,
    grade_by_reference,
)
from stages.core.replies import (
    CHOICE_FORMAT,
    comparison_text,
    grade_format,
    read_choice,
    read_grade,
    submission_text,
)
from stages.core.reply import Reply, Unanswered
from stages.runtime.api.endpoint import Endpoint, Request, ask, quote, request_key, restore

TEMPLATES = Path("stages/templates/judging")
MAX_FAILED_SHARE = 0.5  # of one annotator; a table of mostly failures is no result, and as a finished out of DVC it
# would never be made again. The finer limit is score.max_unscored_share, which can change without judging anew.


class Reference(Section):
    """Compares answers with the prompt's references; stages/core/reference.py has the rule."""

    kind: Literal["reference"]


class Length(Section):
    """Prefers the longer answer."""

    kind: Literal["length"]


class People(Section):
    """A panel of people, whose verdicts on pairs lie in data/annotations and are read by `score`."""

    kind: Literal["people"]
    names: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]  # as there; * is any text


class OpenAI(Endpoint):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    temperature: Annotated[float, Field(ge=0, le=2)] | None  # null: not sent, for models that refuse it
    max_reply_tokens: Annotated[int, Field(ge=1)]  # reasons included; a reply cut there is unscored
    structured: bool  # replies are JSON by a schema (response_format), where the endpoint has that

    def sampling(self, response_format: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of chat.completions.create that shape the reply."""
        temperature = {} if self.temperature is None else {"temperature": self.temperature}
        form = {"response_format": response_format} if self.structured else {}
        return {**temperature, "max_completion_tokens": self.max_reply_tokens, **form}


Annotator = Annotated[Reference | Length | OpenAI | People, Field(discriminator="kind")]


class Annotators(Section):
    """Annotators by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotator]

    def named(self, name: str) -> Reference | Length | OpenAI:
        """One annotator that can be asked.

        Raises:
            ParamsError: there is none of that name, or it is people.
        """
        if name not in self.__pydantic_extra__:
            known = ", ".join(self.__pydantic_extra__) or "nothing"
            raise ParamsError(
                f"params.yaml: annotators: must have every annotator that is used, got {name!r}; add it there, "
                f"or use one of: {known}"
            )
        found = self.__pydantic_extra__[name]
        if isinstance(found, People):
            raise ParamsError(
                f"params.yaml: annotators.{name}: an annotator that a stage asks must be of kind reference, length or "
                f"openai, got people; take it out there, `score` reads their verdicts from data/annotations"
            )
        return found


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
    return _Comparing(name, annotator)


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
            f"which only compares; name another in grade.annotators and select_checkpoint.annotators"
        )
    return _Grading(name, annotator)


FLAGS = {
    "dry_run": "say what it would ask and cost, and do nothing",
    "retry_failed": "ask again for what is unscored in the finished table, and keep the rest of it; then say "
    "`dvc commit --force` for the stage",
}


def tell_costs(
    annotators: Mapping[str, Comparer | Grader], comparisons: list[Comparison], submissions: list[Submission]
) -> None:
    """Say of each annotator what it would ask and cost."""
    for name, annotator in annotators.items():
        if isinstance(annotator, _Comparing):
            quote(annotator.requests(comparisons), annotator.annotator, desc=name)
        elif isinstance(annotator, _Grading):
            quote(annotator.requests(submissions), annotator.annotator, desc=name)
        else:
            print(f"{name}: costs nothing")


def keep_scored(table: pl.DataFrame) -> int:
    """Keep the replies behind the scored rows of a table (VERDICT or GRADE), so that only the others are asked for.

    A machine that pulled the table need not have the cache that it was made with.

    Returns:
        How many rows are unscored.
    """
    scored = table.filter(pl.col("unscored_reason").is_null(), pl.col("request").is_not_null())
    columns = ("reply", "finish_reason", "model", "n_prompt_tokens", "n_reply_tokens")
    restore(
        {
            key: Reply(text, finish_reason, None, model, n_prompt_tokens, n_reply_tokens)
            for key, text, finish_reason, model, n_prompt_tokens, n_reply_tokens in scored.select(
                "request", *columns
            ).iter_rows()
        }
    )
    return table.filter(pl.col("unscored_reason") != NO_REFERENCE).height


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


class _Comparing:
    """A model that compares."""

    def __init__(self, name: str, annotator: OpenAI) -> None:
        self.name, self.annotator = name, annotator
        self.template = _template("judge.txt")
        self.form = _template("judge_reply_json.txt" if annotator.structured else "judge_reply.txt")

    def __call__(self, comparisons: list[Comparison]) -> list[Choice]:
        requests = self.requests(comparisons)
        replies = ask(requests, self.annotator, desc=self.name)
        return [
            choice._replace(receipt=_priced(choice.receipt, request, self.annotator))
            for choice, request in zip(map(self._read, replies), requests, strict=True)
        ]

    def requests(self, comparisons: list[Comparison]) -> list[Request]:
        """What is asked, a request a comparison."""
        sampling = self.annotator.sampling(CHOICE_FORMAT)
        texts = [comparison_text(item, template=self.template, form=self.form) for item in comparisons]
        return [Request([{"role": "user", "content": text}], sampling, self._accepts) for text in texts]

    def _read(self, reply: Reply | Unanswered) -> Choice:
        return read_choice(reply, is_json=self.annotator.structured)

    def _accepts(self, reply: Reply) -> bool:
        return self._read(reply).position is not None


class _Grading:
    """A model that grades."""

    def __init__(self, name: str, annotator: OpenAI) -> None:
        self.name, self.annotator = name, annotator
        self.template = _template("grade.txt")
        self.form = _template("grade_reply_json.txt" if annotator.structured else "grade_reply.txt")
        self.safety_form = _template(
            "grade_reply_safety_json.txt" if annotator.structured else "grade_reply_safety.txt"
        )

    def __call__(self, submissions: list[Submission]) -> list[Grade]:
        requests = self.requests(submissions)
        replies = ask(requests, self.annotator, desc=self.name)
        grades = [
            self._read(reply, is_safety=item.prompt.is_safety) for reply, item in zip(replies, submissions, strict=True)
        ]
        return [
            grade._replace(receipt=_priced(grade.receipt, request, self.annotator))
            for grade, request in zip(grades, requests, strict=True)
        ]

    def requests(self, submissions: list[Submission]) -> list[Request]:
        """What is asked, a request a submission."""
        return [self._request(item) for item in submissions]

    def _request(self, submission: Submission) -> Request:
        is_safety = submission.prompt.is_safety
        text = submission_text(submission, template=self.template, form=self.form, safety_form=self.safety_form)
        sampling = self.annotator.sampling(grade_format(is_safety=is_safety))
        return Request([{"role": "user", "content": text}], sampling, partial(self._accepts, is_safety=is_safety))

    def _read(self, reply: Reply | Unanswered, *, is_safety: bool) -> Grade:
        return read_grade(reply, is_safety=is_safety, is_json=self.annotator.structured)

    def _accepts(self, reply: Reply, *, is_safety: bool) -> bool:
        return self._read(reply, is_safety=is_safety).helpfulness is not None


def _priced(receipt: Receipt, request: Request, endpoint: Endpoint) -> Receipt:
    """With the request's hash, and what its tokens cost."""
    cost = endpoint.cost_of(receipt.n_prompt_tokens, receipt.n_reply_tokens)
    return receipt._replace(request=request_key(request, endpoint), cost=cost)


def _template(name: str) -> str:
    path = TEMPLATES / name
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({type(error).__name__}); restore it from git") from None
