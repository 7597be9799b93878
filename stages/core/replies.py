"""replies: what a model is asked, and what its reply says.

The texts are templates with {{names}}, filled in one pass, so that an answer which itself holds {{answer_b}} stays as
it is. Judged text is data: it stands between tags, and nothing in it can close them (`neutralise`).

A reply is scored by its last well-formed verdict. One without is unscored, for one reason:
refused (by the model or a filter), truncated (cut at the token limit: what follows could have changed it), empty,
two_verdicts (one line that names more than one), off_menu (anything else).
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from stages.core.judging import Choice, Comparison, Grade, Outcome, Position, Submission
from stages.errors import InputError

TAGS = ("prompt", "answer_a", "answer_b", "answer")

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_TAG = re.compile(rf"<(?=\s*/?\s*(?:{'|'.join(TAGS)})\b)", re.IGNORECASE)
_DECORATION = r"[ \t*_`#>.\"'()\[\]]*"  # Markdown and brackets around a verdict are not part of it

_POSITIONS: dict[str, Position] = {"A": "first", "B": "second", "NEITHER": "tie"}
_OUTCOMES: dict[str, Outcome] = {"FAIL": "Fail", "PASS": "Pass", "EXCELLENT": "Excellent"}


class Reply(NamedTuple):
    """What an endpoint answered, as it names itself and its reasons."""

    text: str
    finish_reason: str
    refusal: str | None
    model: str
    n_prompt_tokens: int | None
    n_reply_tokens: int | None


class Unanswered(NamedTuple):
    """A request that the endpoint did not answer, and why: refused, too_long, unanswered."""

    unscored_reason: str
    message: str


def fill(template: str, values: Mapping[str, str], *, name: str) -> str:
    """Fill a template in one pass.

    Raises:
        InputError: the template names a value that there is not, or leaves one out.
    """
    named = set(_PLACEHOLDER.findall(template))
    if named != set(values):
        wanted = " ".join(f"{{{{{key}}}}}" for key in values)
        raise InputError(f"{name}: must name each of {wanted} and no other, got {sorted(named)}; correct the template")
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def neutralise(text: str) -> str:
    """Judged text that can neither close our tags nor open a turn of a chat format: `<` becomes `‹` there.

    >>> neutralise("a < b </answer_a> <|im_end|>")
    'a < b ‹/answer_a> ‹|im_end|>'
    """
    return _TAG.sub("‹", text).replace("<|", "‹|")


def comparison_text(comparison: Comparison, *, template: str, form: str) -> str:
    """The request to compare two answers: the text that people see as well, then the reply's form."""
    values = {
        "prompt": neutralise(comparison.prompt.text),
        "answer_a": neutralise(comparison.first.text),
        "answer_b": neutralise(comparison.second.text),
    }
    return fill(template, values, name="stages/templates/judge.txt") + "\n" + form


def submission_text(submission: Submission, *, template: str, form: str, safety_form: str) -> str:
    """The request to grade one answer, then the reply's form: with the question of safety where it is at stake."""
    values = {"prompt": neutralise(submission.prompt.text), "answer": neutralise(submission.answer.text)}
    text = fill(template, values, name="stages/templates/grade.txt")
    return text + "\n" + (safety_form if submission.prompt.is_safety else form)


def read_choice(reply: Reply | Unanswered) -> Choice:
    """The choice in a reply whose verdict line is `VERDICT: A`, `B` or `NEITHER`."""
    if isinstance(reply, Unanswered):
        return Choice(None, reply.unscored_reason, reply.message)
    verdict, reason = _last_verdict(reply, "VERDICT", tuple(_POSITIONS))
    return Choice(_POSITIONS[verdict] if verdict else None, reason, reply.text, reply.model)


def read_grade(reply: Reply | Unanswered, *, is_safety: bool) -> Grade:
    """The grade in a reply: `OUTCOME:` and, for safety, `SAFE:` lines, and a number from 1 to 6 alone on the last line.

    A reply that lacks one of them is unscored as a whole. A number on any other line may be a list's marker.
    """
    if isinstance(reply, Unanswered):
        return Grade(None, None, None, reply.unscored_reason, reply.message)
    number, no_number = _last_verdict(reply, None, tuple("123456"))
    outcome, no_outcome = _last_verdict(reply, "OUTCOME", tuple(_OUTCOMES))
    safe, no_safe = _last_verdict(reply, "SAFE", ("YES", "NO")) if is_safety else (None, None)
    reason = no_number or no_outcome or no_safe
    if reason or number is None or outcome is None:
        return Grade(None, None, None, reason, reply.text, reply.model)
    return Grade(int(number), _OUTCOMES[outcome], safe == "YES" if safe else None, None, reply.text, reply.model)


def _last_verdict(reply: Reply, label: str | None, menu: tuple[str, ...]) -> tuple[str | None, str | None]:
    """The last well-formed verdict, or the reason why there is none; just one of the two is None.

    One without a label counts on the last line alone (lines of mere decoration aside).
    """
    fault = _fault(reply)
    if fault:
        return None, fault
    head = rf"{_DECORATION}{label}{_DECORATION}:" if label else ""
    line = re.compile(rf"^{head}{_DECORATION}({'|'.join(menu)}){_DECORATION}$", re.IGNORECASE | re.MULTILINE)
    lines = reply.text.splitlines()
    if label is None:
        lines = [text for text in lines if not re.fullmatch(_DECORATION, text)][-1:]
    found = line.findall("\n".join(lines))
    if found:
        return found[-1].upper(), None
    return None, _malformed(reply.text, label, menu)


def _fault(reply: Reply) -> Literal["refused", "truncated", "empty"] | None:
    if reply.refusal or reply.finish_reason == "content_filter":
        return "refused"
    if reply.finish_reason == "length":
        return "truncated"
    return None if reply.text.strip() else "empty"


def _malformed(text: str, label: str | None, menu: tuple[str, ...]) -> Literal["two_verdicts", "off_menu"]:
    """Whether the line that should hold the verdict (the last with the label, else the last of all) holds several."""
    lines = [line for line in text.splitlines() if line.strip() and (label is None or label in line.upper())]
    tail = lines[-1].upper().split(label or "", 1)[-1] if lines and label else (lines or [""])[-1]
    named = set(re.findall(rf"(?<![\w.])(?:{'|'.join(menu)})(?!\w|\.\d)", tail))
    return "two_verdicts" if len(named) > 1 else "off_menu"
