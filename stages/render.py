"""render: write one arm's training set as token ids and loss masks, in chat format.

Reads models/base (its tokenizer only) and data/sample/<arm>.parquet (EXAMPLE).
Writes data/render/<arm>.parquet (RENDERED), a readable preview data/render/<arm>.html, metrics/render/<arm>.json.

LIMA s3: a new end-of-turn token closes every utterance; examples over 2,048 tokens are trimmed. *Our reading*: loss on
responses and their EOT only (`loss_on`), a trimmed example has no EOT, and an example whose prompt alone fills
`max_tokens` is left out: its id stands in the metrics.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from stages.common.errors import InputError
from stages.common.files import read_table, write_json, write_table, write_text
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.core.chat import ChatFormat, Rendered, render_example
from stages.core.preview import Piece, Shown, preview_page
from stages.runtime.tokenizer import ChatTokenizer, load_tokenizer
from stages.schema import EXAMPLE, RENDERED

N_PREVIEW = 5  # examples of each group in the preview


class Params(ChatFormat):
    """Section `render`."""


class Result(NamedTuple):
    """What `run` gives."""

    rendered: pl.DataFrame  # RENDERED, sorted by id
    metrics: dict[str, Any]
    preview: str  # HTML


def run(examples: pl.DataFrame, tokenizer: ChatTokenizer, params: Params, *, arm: str) -> Result:
    """Render every example. One whose prompt leaves no room for a response is left out, and counted.

    Raises:
        InputError: an example has no token with loss, or no EOT with loss though it was not trimmed; or none is left.
    """
    assert tokenizer.eot_id is not None, "the tokenizer carries the chat format"
    rows, no_room = [], []
    for example in examples.sort("id").iter_rows(named=True):
        rendered = render_example(
            example["messages"],
            encode=tokenizer.encode,
            prefix_ids=tokenizer.prefix_ids,
            eot_id=tokenizer.eot_id,
            chat=params,
        )
        if rendered.n_trimmed_tokens and not rendered.n_response_tokens:
            no_room.append(example["id"])
            continue
        check_supervision(rendered, example["id"], eot_id=tokenizer.eot_id)
        rows.append({**{key: example[key] for key in ("id", "source", "group")}, **rendered._asdict()})
    if not rows:
        raise InputError(f"data/sample/{arm}.parquet: no example has something to learn; raise render.max_tokens")
    frame = pl.DataFrame(rows, schema_overrides={"input_ids": pl.List(pl.Int32), "loss_mask": pl.List(pl.Int8)})
    frame = frame.with_columns(n_tokens=pl.col("input_ids").list.len())
    metrics = {**summarise(frame), "n_no_room": len(no_room), "no_room": no_room}
    return Result(frame, metrics, preview_page(arm, _table(metrics), _shown(frame, tokenizer)))


def check_supervision(rendered: Rendered, example_id: str, *, eot_id: int) -> None:
    """Refuse an example from which nothing would be learnt, or no end of turn though nothing was trimmed.

    Raises:
        InputError: naming the example.
    """
    supervised = [token for token, counts in zip(rendered.input_ids, rendered.loss_mask, strict=True) if counts]
    if not supervised:
        raise InputError(f"{example_id}: no token of it carries loss; the dialogue must hold a turn of the assistant")
    if eot_id not in supervised and not rendered.n_trimmed_tokens:
        raise InputError(f"{example_id}: no supervised end of turn; the dialogue must end with the assistant")


def summarise(frame: pl.DataFrame) -> dict[str, Any]:
    """Token statistics of an arm (the paper's Table 1): in all, by source and by group."""
    return {
        "n": len(frame),
        "n_tokens": int(frame["n_tokens"].sum()),
        "n_supervised_tokens": int(frame["loss_mask"].list.sum().sum()),
        "n_trimmed": int((frame["n_trimmed_tokens"] > 0).sum()),
        "max_tokens": int(frame["n_tokens"].max() or 0),  # type: ignore[arg-type]
        "sources": _statistics_by(frame, "source"),
        "groups": _statistics_by(frame, "group"),
    }


def _statistics_by(frame: pl.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    parts = sorted((str(name), part) for (name,), part in frame.group_by(column))
    return {name: _statistics(part) for name, part in parts}


def _statistics(part: pl.DataFrame) -> dict[str, Any]:
    n_response_tokens = part["n_response_tokens"]
    return {
        "n": len(part),
        "mean_prompt_tokens": float((part["n_tokens"].cast(pl.Int64) - n_response_tokens).mean()),  # type: ignore[arg-type]
        "mean_response_tokens": float(n_response_tokens.mean()),  # type: ignore[arg-type]
        "n_trimmed": int((part["n_trimmed_tokens"] > 0).sum()),
        "n_trimmed_tokens": int(part["n_trimmed_tokens"].sum()),
    }


def _table(metrics: dict[str, Any]) -> list[list[str]]:
    """The statistics by group as rows of text."""
    rows = [["group", "examples", "prompt tokens, mean", "response tokens, mean", "trimmed", "tokens trimmed"]]
    for name, part in metrics["groups"].items():
        means = (f"{part[key]:,.0f}" for key in ("mean_prompt_tokens", "mean_response_tokens"))
        rows.append([name, f"{part['n']:,}", *means, f"{part['n_trimmed']:,}", f"{part['n_trimmed_tokens']:,}"])
    return rows


def _shown(frame: pl.DataFrame, tokenizer: ChatTokenizer) -> Iterator[Shown]:
    """The first examples of each group."""
    for row in frame.group_by("group", maintain_order=True).head(N_PREVIEW).sort("group", "id").iter_rows(named=True):
        note = f"{row['group']}, {row['n_tokens']:,} tokens, {sum(row['loss_mask']):,} with loss"
        if row["n_trimmed_tokens"]:
            note += f", {row['n_trimmed_tokens']:,} trimmed and so no end of turn"
        yield Shown(row["id"], note, _pieces(row["input_ids"], row["loss_mask"], tokenizer))


def _pieces(ids: list[int], mask: list[int], tokenizer: ChatTokenizer) -> list[Piece]:
    """Cut an example where the loss begins or ends, and around each special token."""
    special = {tokenizer.eot_id, *tokenizer.prefix_ids}
    pieces = []
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or mask[end] != mask[start] or {ids[end], ids[end - 1]} & special:
            is_special = ids[start] in special
            text = tokenizer.show(ids[start:end]) if is_special else tokenizer.decode(ids[start:end])
            pieces.append(Piece(text, bool(mask[start]), is_special, ends_turn=ids[start] == tokenizer.eot_id))
            start = end
    return pieces


def main(arm: str) -> None:
    """Render one arm."""
    params = load_params("render", Params)
    examples = read_table(Path(f"data/sample/{arm}.parquet"), EXAMPLE)
    tokenizer = load_tokenizer(Path("models/base")).with_eot(params.eot)
    result = run(examples, tokenizer, params, arm=arm)
    write_table(Path(f"data/render/{arm}.parquet"), result.rendered, RENDERED)
    write_text(Path(f"data/render/{arm}.html"), result.preview)
    write_json(Path(f"metrics/render/{arm}.json"), result.metrics)
    if no_room := result.metrics["no_room"]:
        print(
            f"warning: {len(no_room)} of {len(examples)} examples have no room for a response within render.max_tokens "
            f"{params.max_tokens}, first {no_room[0]}; bound prompts in quality.rules.prompt_length",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_stage(main, key="arm")
