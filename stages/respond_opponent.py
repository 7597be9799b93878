"""respond_opponent: get an opponent's answers to the test prompts.

Reads data/prompts/test.parquet (PROMPT) and opponents.<name>.path: a model folder that answers here (`model`), or goes
on from in-context examples (`in_context`); the system message for an endpoint (`endpoint`); or the file of an arm's or
anyone's responses (`responses`).
Writes data/respond_opponent/<name>.parquet (RESPONSE) and data/respond_opponent/<name>.asked.parquet (ASKED), what an
endpoint's answers cost, which has no rows for the other kinds.

LIMA s4.1 takes one answer a prompt from each of its baselines. *Ours*: an untuned base is prompted in plain text, and
`in_context` is the baseline that needs no tuning (stages/core/in_context.py).
"""

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import ConfigDict, Field

from stages.common.errors import InputError
from stages.common.files import empty_table, first_line, read_table, read_text, write_table
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.in_context import STOP, in_context_text
from stages.runtime.answering import Answerer, Form, answer_prompts
from stages.runtime.asking import DRY_RUN, Answering, Generator, answer, questions, tell_cost
from stages.schema import ASKED, PROMPT, RESPONSE

TEMPLATES = Path("stages/templates")


class Params(Section):
    """Section `opponents.<name>`; the keys of an endpoint beside these are those of Generator."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["model", "in_context", "responses", "endpoint"]
    path: str = Field(min_length=1)  # a model folder, a file of responses, or a system message


class Local(Section):
    """An opponent whose answers lie in files, or are made here."""

    kind: Literal["model", "in_context", "responses"]
    path: str


class Remote(Generator):
    """An opponent that is asked."""

    kind: Literal["endpoint"]
    path: str


def from_file(path: Path, prompts: pl.DataFrame, *, opponent: str) -> pl.DataFrame:
    """Read answers to `prompts` (PROMPT rows) from a file.

    Formats by suffix: `.parquet` our RESPONSE rows, matched by prompt id; `.jsonl` a row a line and `.json` a list of
    rows, each LIMA's {conversations: [prompt, response]}, AlpacaEval's {instruction, output} or
    {prompt_id, response}, matched by the prompt's text, or its id.

    Returns:
        RESPONSE rows sorted by prompt and sample.

    Raises:
        InputError: the file is missing or of another form, or a prompt has no answer in it.
    """
    if path.suffix == ".parquet":
        given = read_table(path, RESPONSE).with_columns(responder=pl.lit(opponent))
        found = given.join(prompts.select(prompt_id="id"), on="prompt_id", how="semi")
    else:
        answers = _answers(path)
        rows = [
            {"prompt_id": row["id"], "responder": opponent, "sample": 0, "response": response}
            for row in prompts.iter_rows(named=True)
            if (response := answers.get(row["id"], answers.get(row["messages"][-1]["content"].strip()))) is not None
        ]
        found = pl.DataFrame(
            rows, schema={key: RESPONSE[key] for key in ("prompt_id", "responder", "sample", "response")}
        )
        found = found.with_columns(finish_reason=pl.lit("given"), n_tokens=pl.lit(None))
    missing = prompts.filter(~pl.col("id").is_in(found["prompt_id"].implode()))
    if len(missing):
        raise InputError(
            f"{path}: no answer to {len(missing)} of {len(prompts)} test prompts, first {missing['id'].sort()[0]!r}; "
            "add them, or make the file anew from data/prompts/test.parquet"
        )
    return found.sort("prompt_id", "sample")


def _answers(path: Path) -> dict[str, str]:
    """Response by prompt text or id."""
    answers: dict[str, str] = {}
    for number, row in enumerate(_rows(path), 1):
        key, response = (text.encode(errors="replace").decode() for text in _answer(row, f"{path}: row {number}"))
        if answers.get(key, response) != response:
            raise InputError(f"{path}: row {number}: a second answer to {key[:60]!r}; keep one")
        answers[key] = response
    return answers


def _rows(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
        rows = (
            json.loads(text)
            if path.suffix == ".json"
            else [json.loads(line) for line in text.split("\n") if line.strip()]
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix or 'JSON'} ({first_line(error)}); mend it") from None
    if not isinstance(rows, list):
        raise InputError(
            f"{path}: a list of answers is needed, got a {type(rows).__name__}; see `opponents` in params.yaml"
        )
    return rows


def _answer(row: Any, where: str) -> tuple[str, str]:  # noqa: ANN401 - JSON
    """(prompt text or id, response) of one row."""
    match row:
        case {"conversations": [str(prompt), str(response), *_]}:
            return prompt.strip(), response
        case {"instruction": str(prompt), "output": str(response)}:
            return prompt.strip(), response
        case {"prompt_id": str(prompt_id), "response": str(response)}:
            return prompt_id, response
    raise InputError(
        f"{where}: not an answer; a row has conversations, or instruction and output, or prompt_id and response"
    )


def main(opponent: str, *, dry_run: bool = False) -> None:
    """Answer for one opponent; asking.DRY_RUN says what the switch does."""
    kind = load_params(f"opponents.{opponent}", Params).kind
    decoding = load_params("respond", Answering)  # as the arms answer; who serves those is no matter here
    prompts = read_table(Path("data/prompts/test.parquet"), PROMPT)
    asked = empty_table(ASKED)
    if kind == "endpoint":
        remote = load_params(f"opponents.{opponent}", Remote)
        system = read_text(Path(remote.path).expanduser()).strip()
        put = questions(remote, prompts, decoding, responder=opponent, system=system)
        if dry_run:
            tell_cost(put)
            return
        responses, asked = answer(put)
    elif dry_run:
        print(f"answer {opponent}: costs nothing")
        return
    else:
        path = Path(load_params(f"opponents.{opponent}", Local).path).expanduser()
        if kind == "responses":
            responses = from_file(path, prompts, opponent=opponent)
        else:
            answerer = Answerer(path, precision=decoding.precision)
            form = None
            if kind == "in_context":
                form = Form(partial(in_context_text, template=read_text(TEMPLATES / "in_context.txt")), STOP)
            responses = answer_prompts(answerer, prompts, decoding, responder=opponent, form=form)
    write_table(Path(f"data/respond_opponent/{opponent}.parquet"), responses, RESPONSE)
    write_table(Path(f"data/respond_opponent/{opponent}.asked.parquet"), asked, ASKED)


if __name__ == "__main__":
    run_stage(main, key="opponent", flags=DRY_RUN)
