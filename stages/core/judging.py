"""judging: what an annotator is shown, what it says, and the annotators that need no model.

A comparison shows two answers in one order; the choice is about positions ("first", "second", "tie"). What it says
about contestants follows from the order. A grade is about one answer alone. Either may be unscored, with its reason;
`no_reference` means that the annotator does not apply, every other reason that it failed.
"""

from typing import Literal, NamedTuple, Protocol

from stages.core.reference import Match, match

Position = Literal["first", "second", "tie"]
Order = Literal["ab", "ba"]
Outcome = Literal["Fail", "Pass", "Excellent"]

NO_REFERENCE = "no_reference"
ORDERS: tuple[Order, Order] = ("ab", "ba")


class Prompt(NamedTuple):
    """What was asked: the dialogue as one text, the accepted answers (empty: unknown), whether safety is at stake."""

    id: str
    text: str
    references: tuple[str, ...] = ()
    is_safety: bool = False


class Answer(NamedTuple):
    """One answer and why it ended (schema.RESPONSE)."""

    text: str
    finish_reason: str


class Comparison(NamedTuple):
    """One presentation of two answers."""

    prompt: Prompt
    first: Answer
    second: Answer


class Submission(NamedTuple):
    """One answer to be graded."""

    prompt: Prompt
    answer: Answer


class Receipt(NamedTuple):
    """What a model's verdict rests on (schema.RECEIPT); all None where no model was asked."""

    reply: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    n_prompt_tokens: int | None = None
    n_reply_tokens: int | None = None
    cost: float | None = None
    request: str | None = None


class Choice(NamedTuple):
    """A verdict on a comparison; `position` is None exactly when `unscored_reason` is not."""

    position: Position | None
    unscored_reason: str | None = None
    receipt: Receipt = Receipt()


class Grade(NamedTuple):
    """A verdict on a submission: helpfulness 1..6, outcome; `safe` is None where it is not at stake or not judged."""

    helpfulness: int | None
    outcome: Outcome | None
    safe: bool | None = None
    unscored_reason: str | None = None
    receipt: Receipt = Receipt()


class Comparer(Protocol):
    """An annotator that compares; one choice a comparison, in their order."""

    def __call__(self, comparisons: list[Comparison], /) -> list[Choice]: ...  # noqa: D102


class Grader(Protocol):
    """An annotator that grades; one grade a submission, in their order."""

    def __call__(self, submissions: list[Submission], /) -> list[Grade]: ...  # noqa: D102


# What the reference annotator's grades mean on the scale of s5; ours.
REFERENCE_GRADES: dict[Match, tuple[int, Outcome]] = {
    Match.RIGHT: (6, "Excellent"),
    Match.CONTAINS: (3, "Pass"),
    Match.WRONG: (1, "Fail"),
}


def compare_by_reference(comparison: Comparison) -> Choice:
    """Prefer the answer that matches better: right over contains over wrong; equal matches tie."""
    if not comparison.prompt.references:
        return Choice(None, NO_REFERENCE)
    first, second = (_match(comparison.prompt, answer) for answer in comparison[1:])
    return Choice(_larger(first, second))


def compare_by_length(comparison: Comparison) -> Choice:
    """Prefer the answer with more characters; equal lengths tie. A judge must say more than this to be of worth."""
    return Choice(_larger(len(comparison.first.text), len(comparison.second.text)))


def grade_by_reference(submission: Submission) -> Grade:
    """Grade by REFERENCE_GRADES. An accepted value says nothing about safety, so `safe` stays None."""
    if not submission.prompt.references:
        return Grade(None, None, unscored_reason=NO_REFERENCE)
    helpfulness, outcome = REFERENCE_GRADES[_match(submission.prompt, submission.answer)]
    return Grade(helpfulness, outcome)


def preference(position: Position | None, order: Order) -> str | None:
    """What a choice says about contestants: a, b or tie; None stays None.

    >>> preference("first", "ba")
    'b'
    """
    if position is None or position == "tie":
        return position
    return order[0] if position == "first" else order[1]


def _match(prompt: Prompt, answer: Answer) -> Match:
    return match(answer.text, prompt.references, finish_reason=answer.finish_reason)


def _larger(first: int, second: int) -> Position:
    if first == second:
        return "tie"
    return "first" if first > second else "second"
