"""The tables that judging reads, of a run small enough to work out by hand; written by their schemas."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.files import empty_table, write_table
from stages.schema import ASKED, EPOCH_RESPONSE, PERPLEXITY, PROMPT, RESPONSE
from tests.runtime.chat_server import ChatServer

ROOT = Path(__file__).parents[1]

PARAMS: dict[str, Any] = {
    "arms": {arm: {"sample": {}, "sft": {}} for arm in ("curated", "bulk")},
    "opponents": {"base": {}, "bulk": {}},
    "annotators": {"reference": {"kind": "reference"}, "length": {"kind": "length"}},
    "select_checkpoint": {"by": "grade", "annotators": ["reference"]},
    "judge": {"arm": "curated", "annotators": ["reference", "length"]},
    "grade": {"annotators": ["reference"]},
    "score": {"seed": 0, "n_bootstrap": 300, "confidence": 0.95, "max_unscored_share": 0.2},
}

# Test prompts p0..p4; p4 has no reference. An answer that ends in "..." was cut off.
ANSWERS = {
    "curated": ["v0", "v1", "v2", "no", "a story"],
    "bulk": ["v0", "no idea", "v2 and more", "v3", "a longer story"],
    "base": ["the v0 of ...", "rambling on ...", "v2 v2 v2 ...", "...", "once upon a time ..."],
}


def prompts(split: str, n: int, *, n_bare: int) -> pl.DataFrame:
    """Prompts <split>:p0 ... of which the last `n_bare` have no reference."""
    rows = [
        {
            **dict.fromkeys(PROMPT),
            "id": f"{split}:p{i}",
            "split": split,
            "messages": [{"role": "user", "content": f"What is v{i}?"}],
            "references": [f"v{i}"] if i < n - n_bare else None,
        }
        for i in range(n)
    ]
    return pl.DataFrame(rows, schema=PROMPT)


def responses(responder: str, texts: list[str], *, split: str = "test") -> pl.DataFrame:
    """One answer a prompt."""
    rows = [
        (f"{split}:p{i}", responder, 0, text, "length" if text.endswith("...") else "eot", len(text))
        for i, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=RESPONSE, orient="row")


def epoch_responses(responder: str, by_epoch: Mapping[int, list[str]]) -> pl.DataFrame:
    """One answer a dev prompt and epoch."""
    tables = [
        responses(responder, texts, split="dev").select(pl.lit(epoch, pl.Int32).alias("epoch"), *RESPONSE)
        for epoch, texts in by_epoch.items()
    ]
    return pl.concat([pl.DataFrame(schema=EPOCH_RESPONSE), *tables])


DEV_ANSWERS = {5: ["no", "no", "no"], 10: ["v0", "v1", "v2"], 15: ["v0", "v1", "no"]}


def write_run(root: Path, params: dict[str, Any] | None = None) -> None:
    """Write params.yaml and everything that select_checkpoint, judge and grade read."""
    (root / "params.yaml").write_text(json.dumps(params or PARAMS))
    write_table(root / "data/prompts/test.parquet", prompts("test", 5, n_bare=1), PROMPT)
    write_table(root / "data/prompts/dev.parquet", prompts("dev", 3, n_bare=0), PROMPT)
    for arm in ("curated", "bulk"):
        write_table(root / f"data/respond/{arm}.parquet", responses(arm, ANSWERS[arm]), RESPONSE)
        write_table(root / f"data/generate/{arm}.parquet", epoch_responses(arm, DEV_ANSWERS), EPOCH_RESPONSE)
        perplexity = pl.DataFrame([(e, 5.0 + e, 100) for e in DEV_ANSWERS], schema=PERPLEXITY, orient="row")
        write_table(root / f"data/generate/{arm}.perplexity.parquet", perplexity, PERPLEXITY)
        for stage in ("generate", "respond"):
            write_table(root / f"data/{stage}/{arm}.asked.parquet", empty_table(ASKED), ASKED)
        for epoch in DEV_ANSWERS:
            write_model(root / f"models/sft/{arm}/epoch_{epoch:02d}", text=f"{arm} {epoch}")
    for opponent in ("base", "bulk"):
        table = responses(opponent, ANSWERS[opponent])
        write_table(root / f"data/respond_opponent/{opponent}.parquet", table, RESPONSE)
        write_table(root / f"data/respond_opponent/{opponent}.asked.parquet", empty_table(ASKED), ASKED)


def write_model(folder: Path, *, text: str) -> None:
    """A model folder that is complete in form: a safetensors file without tensors, its text in the config."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"name": "{text}"}}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


def with_model(server: ChatServer, stage: str) -> None:
    """Params in which a model behind `server` is the stage's annotator."""
    model = {
        "kind": "openai", "base_url": server.base_url, "model": "judge-1", "api_key_env": None, "concurrency": 2,
        "timeout_s": 5, "max_attempts": 1, "temperature": 0, "max_reply_tokens": 50, "structured": False,
        "price": {"input": 1, "output": 2}, "max_cost": 1, "batch": None,
    }  # fmt: skip
    params = {**PARAMS, "annotators": {**PARAMS["annotators"], "gpt": model}}
    params[stage] = {**PARAMS[stage], "annotators": ["gpt", "reference"]}
    Path("params.yaml").write_text(json.dumps(params))


def command(*arguments: str) -> str:
    """What `python -m stages...` prints; run from the project, whose templates it reads."""
    if not Path("stages").exists():
        Path("stages").symlink_to(ROOT / "stages")
    environment = {**os.environ, "DVC_ROOT": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=environment, check=False, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return done.stdout
