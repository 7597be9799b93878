"""authored: read examples and prompts that were written for this project.

train.jsonl holds examples, dialogues.jsonl longer ones in a group of their own; dev.jsonl and test.jsonl hold
prompts, in whose split they stay. One JSON object a line, with `id`, `topic` and `messages`; the checks are strict,
for whoever wrote a line can mend it. The domain is the topic.

LIMA s2.2: two groups of authors, 200 training examples, 50 dev and 230 test prompts; 13 and 30 of them unsafe.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from stages.common.errors import InputError
from stages.common.section import Section
from stages.core.rows import Candidate, Prompt, Tally
from stages.runtime.lines import json_rows

UNIT = "lines"
GROUPS = {"train": "authored", "dialogues": "authored_dialogue", "dev": "authored", "test": "authored"}  # by file
PROMPTS = ("dev", "test")  # files of prompts without an answer


class Message(Section):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str = Field(min_length=1)


class Line(Section):
    """One line of a file."""

    id: str = Field(min_length=1)  # unique among the four files
    topic: str = Field(min_length=1)  # what it is about: the domain
    messages: list[Message] = Field(min_length=1)  # in turn, beginning with the user
    references: list[str] | None = None  # of a prompt: answers that count as right
    safety: bool | None = None  # it is unsafe to answer as it stands
    malicious: bool | None = None  # ... since it means harm
    format: bool | None = None  # it asks for a fixed structure (LIMA, Appendix E)
    url: str | None = None
    author: str | None = None
    license: str | None = None
    created: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")


def read(folder: Path, *, source: str, tally: Tally) -> Iterator[Candidate | Prompt]:
    """Yield a row for each line.

    Args:
        folder: data/pull/<source>.
        source: key of the source.
        tally: counts the lines; none is left out.

    Raises:
        InputError: a line breaks a rule; the message names file, line, rule and value.
    """
    first_seen: dict[str, str] = {}
    for split in GROUPS:
        for path in sorted(folder.rglob(f"{split}.jsonl")):
            with path.open("rb") as file:
                for number, row in json_rows(file, path):
                    where = f"{path}, line {number}"
                    line = _checked(where, row, split)
                    if line.id in first_seen:
                        raise InputError(
                            f"{where}: id must be unique, got {line.id!r} of {first_seen[line.id]}; give it another"
                        )
                    first_seen[line.id] = where
                    tally.n_read += 1
                    yield _row(line, source, split)


def _checked(where: str, row: dict[str, object], split: str) -> Line:
    try:
        line = Line.model_validate(row)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise InputError(f"{where}: {key}: {fault['msg']}, got {str(fault['input'])[:60]!r}; mend the line") from None
    expected = ["user" if i % 2 == 0 else "assistant" for i in range(len(line.messages))]
    if [message.role for message in line.messages] != expected:
        roles = ", ".join(message.role for message in line.messages)
        raise InputError(f"{where}: messages must alternate and begin with the user, got {roles}; mend the line")
    last = "user" if split in PROMPTS else "assistant"
    if expected[-1] != last:
        raise InputError(f"{where}: messages of {split} must end with the {last}, got {expected[-1]}; mend the line")
    if split not in PROMPTS and line.references is not None:
        raise InputError(f"{where}: references must stand with prompts only, got some in {split}; remove them")
    if line.malicious and not line.safety:
        raise InputError(f"{where}: malicious must come with safety, got {line.safety}; set safety to true")
    return line


def _row(line: Line, source: str, split: str) -> Candidate | Prompt:
    messages = [{"role": turn.role, "content": turn.content} for turn in line.messages]
    if split not in PROMPTS:
        return Candidate(
            id=f"{source}:{line.id}",
            source=source,
            domain=line.topic,
            group=GROUPS[split],
            score=None,
            messages=messages,
            url=line.url,
            author=line.author,
            license=line.license,
            created=line.created,
        )
    return Prompt(
        id=f"{source}:{line.id}",
        split=split,
        source=source,
        group=GROUPS[split],
        domain=line.topic,
        messages=messages,
        references=line.references,
        safety=line.safety,
        malicious=line.malicious,
        url=line.url,
        author=line.author,
        license=line.license,
        created=line.created,
    )
