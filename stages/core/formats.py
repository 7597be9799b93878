"""formats: what a source is in params.yaml, and which files each raw format is made of."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.common.section import Section
from stages.core.origins import checked

Format = Literal["stack_exchange", "wikihow", "reddit", "natural_instructions", "authored"]

MINIATURE = "miniature"  # the origin that is invented here, by stages.core.world

# Patterns of file names. A folder may hold anything else beside them: it is neither copied nor read.
FILES: dict[Format, tuple[str, ...]] = {
    "stack_exchange": ("*.7z", "Posts.xml", "Users.xml", "Comments.xml"),
    "wikihow": ("*.csv",),
    "reddit": ("*.zst", "*.csv"),
    "natural_instructions": ("task*.json",),
    "authored": ("train.jsonl", "dialogues.jsonl", "dev.jsonl", "test.jsonl"),
}


class Miniature(Section):
    """Section `miniature`: the invented world."""

    seed: int = Field(ge=0)
    n_people: int = Field(ge=150, le=2000)  # 300 test questions need 60 test people, two in five; names run out later


class Source(Section):
    """One upstream."""

    format: Format  # layout of its files
    # "miniature"; or a folder, absolute or relative to params.yaml; or an address, see stages.core.origins
    origin: Annotated[str, Field(min_length=1), AfterValidator(checked)]
    # which of its files: patterns of names, those with "!" before them are left out; null or absent: all
    only: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=1)


def is_raw_file(path: PurePath, format: Format) -> bool:  # noqa: A002 - the word of params.yaml
    """Say whether a format reads files of this name.

    >>> is_raw_file(PurePath("a/Posts.xml"), "stack_exchange"), is_raw_file(PurePath("a/notes.txt"), "wikihow")
    (True, False)
    """
    return any(PurePath(path.name).match(pattern) for pattern in FILES[format])
