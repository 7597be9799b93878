"""Rows for the tests of quality, dedup and sample: what a test does not name is plausible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from stages.common.params import load_params
from stages.schema import CANDIDATE, EXAMPLE, PROMPT, PROVENANCE

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "profiles/miniature.yaml"


def section(name: str, model: Any) -> Any:
    """A section of the miniature's parameters."""
    return load_params(name, model, path=PARAMS)


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def row(id_: str, prompt: str = "What does Ada do?", response: str = "She bakes.", **cells: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "source": id_.partition(":")[0],
        "domain": "crafts",
        "group": "stack_exchange_stem",
        "score": 12,
        "messages": turns(prompt, response),
        **dict.fromkeys(PROVENANCE),
        "prompt_score": 5,
        **cells,
    }


def examples(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=EXAMPLE)


def candidates(*rows: dict[str, Any]) -> pl.DataFrame:
    empty = {"title": None, "body": None, "over_18": None}
    return pl.DataFrame([{**empty, **cells} for cells in rows], schema=CANDIDATE)


def prompts(*texts: str) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {**dict.fromkeys(PROMPT), "id": f"authored:test-{i:04d}", "messages": turns(text)}
            for i, text in enumerate(texts)
        ],
        schema=PROMPT,
    )
