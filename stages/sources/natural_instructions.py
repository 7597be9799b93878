"""natural_instructions: read Super-Natural Instructions, one instance a row.

A file is a task (task*.json): a definition and instances of input and outputs. The prompt is the definition and the
input, the response the first output, the domain the task, the licence the task's `Instance License` (some tasks lack
it: then it is unknown, hence null). `Definition`, `output` and others are lists in most tasks and plain text in a few;
both are read.

LIMA s2.2 takes one random example from each of 50 generation tasks; choosing is the business of later stages. Tasks
not wholly in English are left out (ours: LIMA's are English).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.common.files import first_line
from stages.core.rows import Candidate, Tally, paragraphs, storable, storable_value, turns

UNIT = "instances"
GROUP = "natural_instructions"

_LANGUAGES = ("Input_language", "Output_language", "Instruction_language")
_BYTES_A_BYTE = 3  # of memory, from a task's JSON to its objects; the largest of upstream's 1,600 has some 100 MB


def files(folder: Path) -> list[Path]:
    """The tasks of a folder, in the order in which they are read."""
    return sorted(folder.rglob("task*.json"))


def read(path: Path, *, source: str, max_post_chars: int, memory_bytes: int, tally: Tally) -> Iterator[Candidate]:
    """Yield a row for each instance of a task.

    Args:
        path: the task.
        source: key of the source.
        max_post_chars: characters; an instance with a longer prompt or response is left out.
        memory_bytes: a task is read as a whole; one that would take more is refused.
        tally: counts the instances and what became of them.

    Raises:
        InputError: the file is damaged, of another form, or too large.
    """
    task = _task(path, memory_bytes)
    is_english = all(set(_texts(path, task, key)) == {"English"} for key in _LANGUAGES)
    for number, instance in enumerate(task["Instances"]):
        tally.n_read += 1
        if not is_english:
            tally.left_out["not in English, or in a language not named"] += 1
            continue
        found = _candidate(path, task, number, instance, source=source, max_post_chars=max_post_chars)
        if isinstance(found, Candidate):
            yield found
        else:
            tally.left_out[found] += 1


def _task(path: Path, memory_bytes: int) -> dict[str, Any]:
    n_bytes, limit = path.stat().st_size, memory_bytes // _BYTES_A_BYTE
    if n_bytes > limit:
        raise InputError(
            f"{path}: a task must have at most {limit:,} bytes, a third of `extract.memory_mb`, got {n_bytes:,}; "
            "raise that in params.yaml or remove the file"
        )
    try:
        task = storable_value(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: must be JSON, got {first_line(error)}; fetch it anew") from None
    if not isinstance(task, dict) or not isinstance(task.get("Instances"), list) or "Definition" not in task:
        raise InputError(f"{path}: must be a task with Definition and Instances, got something else; remove the file")
    return task


def _candidate(
    path: Path, task: dict[str, Any], number: int, instance: object, *, source: str, max_post_chars: int
) -> Candidate | str:
    """Return the row of an instance, or why there is none."""
    if not isinstance(instance, dict):
        raise InputError(f"{path}: instance {number} must be an object, got {type(instance).__name__}; mend the file")
    outputs = _texts(path, instance, "output")
    prompt = paragraphs(*_texts(path, task, "Definition"), *_texts(path, instance, "input"))
    response = outputs[0].strip() if outputs else ""
    if not response or not "".join(_texts(path, instance, "input")).strip():
        return "without input or output"
    if max(len(prompt), len(response)) > max_post_chars:
        return f"over {max_post_chars:,} characters"
    return Candidate(
        id=f"{source}:{_native_id(path, instance, number)}",
        source=source,
        domain=storable(path.stem),
        group=GROUP,
        score=None,
        messages=turns(prompt, response),
        url=next(iter(_texts(path, task, "URL")), None),
        author=", ".join(_texts(path, task, "Contributors")) or None,
        license=", ".join(_texts(path, task, "Instance License")) or None,
        tags=_texts(path, task, "Categories") or None,
    )


def _native_id(path: Path, instance: dict[str, Any], number: int) -> str:
    """Return the instance's own id, or its place in the task: older files have no ids."""
    given = instance.get("id")
    return given if isinstance(given, str) and given else f"{storable(path.stem)}/{number}"


def _texts(path: Path, fields: dict[str, Any], key: str) -> list[str]:
    """Return a field that is a text, a list of texts or absent, as a list."""
    value = fields.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, str) for item in values):
        raise InputError(f"{path}: {key} must be text or a list of texts, got {str(value)[:60]!r}; mend the file")
    return values
