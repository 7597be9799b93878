"""render: write one arm's training set as token ids and loss masks, in chat format.

Reads models/base (its tokenizer only) and data/sample/<arm>.parquet (EXAMPLE).
Writes data/render/<arm>.parquet (RENDERED), a readable preview data/render/<arm>.html, metrics/render/<arm>.json.

LIMA s3: a new end-of-turn token closes every utterance; examples over 2,048 tokens are trimmed. *Our reading*: loss on
responses and their EOT only (`loss_on`), a trimmed example has no EOT, and an example whose prompt alone fills
`max_tokens` is left out: its id stands in the metrics.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from stages.core.chat import ChatFormat, Rendered, render_example
from stages.core.preview import Piece, preview_page
from stages.errors import InputError
from stages.runtime.files import read_table, write_json, write_table, write_text
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
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
        InputError: an example ends without a supervised EOT and was not trimmed, or none is left.
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
    return Result(frame, metrics, preview_page(arm, _pieces(frame, tokenizer)))


def check_supervision(rendered: Rendered, example_id: str, *, eot_id: int) -> None:
    """Refuse an example from which no end of turn would be learnt though nothing was trimmed.

    Raises:
        InputError: naming the example.
    """
    supervised = [token for token, counts in zip(rendered.input_ids, rendered.loss_mask, strict=True) if counts]
    if eot_id not in supervised and not rendered.n_trimmed_tokens:
        raise InputError(f"{example_id}: no supervised end of turn; the dialogue must end with the assistant")


def summarise(frame: pl.DataFrame) -> dict[str, Any]:
    """Token statistics of an arm, in all and by group (the paper's Table 1)."""
    return {
        "n": len(frame),
        "n_tokens": int(frame["n_tokens"].sum()),
        "n_supervised_tokens": int(frame["loss_mask"].list.sum().sum()),
        "n_trimmed": int((frame["n_trimmed_tokens"] > 0).sum()),
        "max_tokens": int(frame["n_tokens"].max() or 0),  # type: ignore[arg-type]
        "groups": {
            str(name): _group_statistics(group)
            for (name,), group in sorted(frame.group_by("group"), key=lambda item: str(item[0]))
        },
    }


def _group_statistics(group: pl.DataFrame) -> dict[str, Any]:
    n_response_tokens = group["n_response_tokens"]
    return {
        "n": len(group),
        "mean_prompt_tokens": float((group["n_tokens"].cast(pl.Int64) - n_response_tokens).mean()),  # type: ignore[arg-type]
        "mean_response_tokens": float(n_response_tokens.mean()),  # type: ignore[arg-type]
        "n_trimmed": int((group["n_trimmed_tokens"] > 0).sum()),
        "n_trimmed_tokens": int(group["n_trimmed_tokens"].sum()),
    }


def _pieces(frame: pl.DataFrame, tokenizer: ChatTokenizer) -> dict[str, list[Piece]]:
    """The first examples of each group, cut where the loss mask changes; EOT is shown by its text."""
    shown: dict[str, list[Piece]] = {}
    for row in frame.group_by("group", maintain_order=True).head(N_PREVIEW).sort("group", "id").iter_rows(named=True):
        pieces = []
        start = 0
        ids, mask = row["input_ids"], row["loss_mask"]
        for end in range(1, len(ids) + 1):
            if end == len(ids) or mask[end] != mask[start] or ids[end - 1] == tokenizer.eot_id:
                pieces.append(Piece(tokenizer.show(ids[start:end]), supervised=bool(mask[start])))
                start = end
        shown[f"{row['group']} · {row['id']}"] = pieces
    return shown


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
