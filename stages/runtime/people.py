"""People's verdicts: data/annotations/*.jsonl, a verdict a line; data/annotations/README.md has the format."""

from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import Field, ValidationError

from stages.common.errors import InputError
from stages.common.files import first_line
from stages.common.section import Section
from stages.core.people import PERSON_VERDICT


class PersonVerdict(Section):
    """One line."""

    prompt_id: Annotated[str, Field(min_length=1)]
    sample: Annotated[int, Field(ge=0, lt=2**31)]
    a: Annotated[str, Field(min_length=1)]
    b: Annotated[str, Field(min_length=1)]
    annotator: Annotated[str, Field(min_length=1)]
    preference: Literal["a", "b", "tie"]
    response_a: str | None = None  # the texts that were compared, to notice when answers have changed since
    response_b: str | None = None


def read_people(folder: Path) -> pl.DataFrame:
    """Every line of every .jsonl file in `folder`: PERSON_VERDICT rows, by file name and line.

    Raises:
        InputError: a line is not a verdict, naming file and line.
    """
    verdicts = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON may hold U+2028
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable as UTF-8 text ({first_line(error)}); mend or remove it") from None
        verdicts += [_verdict(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    return pl.DataFrame([verdict.model_dump() for verdict in verdicts], schema=PERSON_VERDICT)


def _verdict(line: str, where: str) -> PersonVerdict:
    try:
        return PersonVerdict.model_validate_json(line)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"]) or "the line"
        raise InputError(
            f"{where}: {key}: {fault['msg']}, got {str(fault['input'])[:80]!r}; "
            "data/annotations/README.md has the format"
        ) from None
