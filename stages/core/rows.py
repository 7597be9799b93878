"""rows: one row as a reader of `stages/sources/` gives it, before it becomes a line of a table.

A reader yields a Candidate (a prompt with its response) or a Prompt (without one) for each unit that it keeps, and
accounts for all others in its Tally. The fields are the columns of `stages.schema`, in their order.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Messages = list[dict[str, str]]

_SURROGATE = re.compile("[\ud800-\udfff]")


class Candidate(NamedTuple):
    """A row of schema.CANDIDATE."""

    id: str
    source: str
    domain: str
    group: str
    score: int | None
    messages: Messages
    url: str | None = None
    author: str | None = None
    license: str | None = None
    created: str | None = None
    tags: list[str] | None = None
    prompt_score: int | None = None
    title: str | None = None
    body: str | None = None
    over_18: bool | None = None


class Prompt(NamedTuple):
    """A row of schema.PROMPT."""

    id: str
    split: str | None
    source: str
    group: str
    domain: str
    messages: Messages
    references: list[str] | None = None
    safety: bool | None = None
    malicious: bool | None = None
    score: int | None = None
    over_18: bool | None = None
    url: str | None = None
    author: str | None = None
    license: str | None = None
    created: str | None = None


@dataclass
class Tally:
    """What became of the units of a source: n_read + n_further == rows that were yielded + those left out.

    `unit` names what is counted (questions, articles, ...); `n_further` counts the rows of a unit beyond its first;
    `aside` counts things that are no units, such as answers to questions that the dump does not hold.
    """

    unit: str
    n_read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    aside: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    n_further: int = 0

    def add(self, other: Tally) -> None:
        """Take in the account of another part of the source."""
        self.n_read += other.n_read
        self.n_further += other.n_further
        self.left_out.update(other.left_out)
        self.aside.update(other.aside)
        self.notes += [note for note in other.notes if note not in self.notes]

    def note(self) -> dict[str, Any]:
        """Return the account as plain values."""
        return {**vars(self), "left_out": dict(self.left_out), "aside": dict(self.aside)}

    @classmethod
    def from_note(cls, note: dict[str, Any]) -> Tally:
        """Return the account that `note` has made plain values of."""
        return cls(**{**note, "left_out": Counter(note["left_out"]), "aside": Counter(note["aside"])})

    def line(self, *, n_candidates: int, n_prompts: int) -> str:
        """Everything in one line.

        >>> Tally("articles", 3, Counter({"no text": 1})).line(n_candidates=2, n_prompts=0)
        '2 rows and 0 prompts of 3 articles; left out: 1 no text'
        """
        parts = [f"{n_candidates:,} rows and {n_prompts:,} prompts of {self.n_read:,} {self.unit}"]
        parts += [f"left out: {_listed(self.left_out)}"] if self.left_out.total() else []
        parts += [f"besides: {_listed(self.aside)}"] if self.aside.total() else []
        return "; ".join([*parts, *self.notes])


def turns(prompt: str, response: str | None = None) -> Messages:
    """Return the messages of one exchange, or of a prompt that awaits its response."""
    messages = [{"role": "user", "content": prompt}]
    return messages if response is None else [*messages, {"role": "assistant", "content": response}]


def paragraphs(*parts: str | None) -> str:
    r"""Join what is not empty with an empty line between.

    >>> paragraphs("title", "", "body")
    'title\n\nbody'
    """
    return "\n\n".join(part.strip() for part in parts if part and part.strip())


def storable(text: str) -> str:
    """Return the text with U+FFFD for lone surrogates: JSON can spell them, no UTF-8 file can hold them.

    >>> storable("a" + chr(0xD83D)) == "a" + chr(0xFFFD)
    True
    """
    return _SURROGATE.sub("\ufffd", text)


def storable_value(value: Any) -> Any:  # noqa: ANN401 - JSON is any tree of plain values
    """Return a JSON value with every text in it, keys too, made `storable`."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [storable_value(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable_value(item) for key, item in value.items()}
    return value


def iso_date(seconds: float) -> str:
    """Return the UTC date of a Unix time.

    >>> iso_date(1376577414)
    '2013-08-15'
    """
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).date().isoformat()


def _listed(counts: Counter[str]) -> str:
    names: Sequence[str] = sorted(counts)
    return ", ".join(f"{counts[name]:,} {name}" for name in names if counts[name])
