"""answers: lay the answers to each test prompt side by side, with references and verdicts.

What two orders of a pair amount to is the score's to say (stages/core/preferences.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from stages.core.preferences import resolve
from stages.core.reference import match


class Reply(NamedTuple):
    """What an annotator wrote about one presentation."""

    order: str
    text: str


class Verdict(NamedTuple):
    """What an annotator says of one pair of answers."""

    annotator: str
    outcome: str  # win, tie, lose, inconsistent, unscored, not_applicable
    reason: str | None  # why it is unscored
    replies: tuple[Reply, ...]


class Answer(NamedTuple):
    """One responder's answer; `response` is None where it gave none."""

    responder: str
    response: str | None
    finish_reason: str | None
    n_tokens: int | None
    match: str | None  # right, contains, wrong; None without references
    verdicts: tuple[Verdict, ...]


class Card(NamedTuple):
    """A test prompt, its references and the answers, the judged arm's first."""

    id: str
    group: str
    messages: list[dict[str, str]]
    references: tuple[str, ...]
    safety: bool
    malicious: bool
    answers: tuple[Answer, ...]

    @property
    def outcomes(self) -> dict[str, dict[str, str]]:
        """Outcome by opponent and annotator, for the filter."""
        return {one.responder: {v.annotator: v.outcome for v in one.verdicts} for one in self.answers if one.verdicts}


def cards(
    prompts: pl.DataFrame,
    *,
    judged: str,
    responses: Mapping[str, pl.DataFrame],
    verdicts: Mapping[str, pl.DataFrame],
    annotators: Sequence[str],
) -> list[Card]:
    """Lay out every test prompt; of several answers to a prompt the first sample is shown.

    Args:
        prompts: PROMPT.
        judged: the judged arm, a key of `responses`.
        responses: RESPONSE by responder.
        verdicts: VERDICT by opponent, `a` being the judged arm.
        annotators: the order of verdicts; those of others are left out.
    """
    first = {name: _by_prompt(frame.filter(sample=0)) for name, frame in responses.items()}
    shown = (pl.col("sample") == 0) & pl.col("annotator").is_in(list(annotators))
    said = {name: _verdicts(frame.filter(shown), annotators) for name, frame in verdicts.items()}
    order = [judged, *(name for name in responses if name != judged)]
    return [
        Card(
            id=prompt["id"],
            group=prompt["group"],
            messages=prompt["messages"],
            references=tuple(prompt["references"] or ()),
            safety=bool(prompt["safety"]),
            malicious=bool(prompt["malicious"]),
            answers=tuple(
                _answer(
                    name,
                    first[name].get(prompt["id"]),
                    prompt["references"] or (),
                    said.get(name, {}).get(prompt["id"], ()),
                )
                for name in order
            ),
        )
        for prompt in prompts.sort("id").iter_rows(named=True)
    ]


def _answer(name: str, row: dict[str, Any] | None, references: Sequence[str], verdicts: tuple[Verdict, ...]) -> Answer:
    if row is None:
        return Answer(name, None, None, None, None, verdicts)
    response, reason = row["response"], row["finish_reason"]
    how = match(response, references, finish_reason=reason).name.lower() if references else None
    return Answer(name, response, reason, row["n_tokens"], how, verdicts)


def _verdicts(frame: pl.DataFrame, annotators: Sequence[str]) -> dict[str, tuple[Verdict, ...]]:
    """Verdicts by prompt, in the order of `annotators`."""
    settled = {(row["prompt_id"], row["annotator"]): row["outcome"] for row in resolve(frame).iter_rows(named=True)}
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in frame.sort("prompt_id", "annotator", "order").iter_rows(named=True):
        rows.setdefault((row["prompt_id"], row["annotator"]), []).append(row)
    verdicts: dict[str, list[Verdict]] = {}
    for prompt, annotator in sorted(rows, key=lambda key: (key[0], annotators.index(key[1]))):
        found = rows[prompt, annotator]
        reason = next((row["unscored_reason"] for row in found if row["unscored_reason"]), None)
        replies = tuple(Reply(row["order"], row["reply"]) for row in found if row["reply"])
        verdicts.setdefault(prompt, []).append(Verdict(annotator, settled[prompt, annotator], reason, replies))
    return {prompt: tuple(said) for prompt, said in verdicts.items()}


def _by_prompt(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["prompt_id"]: row for row in frame.iter_rows(named=True)}
