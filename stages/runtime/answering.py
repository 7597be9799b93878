"""Prompts in, answers out, by a model folder: used wherever a model answers."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from stages.core.chat import render_prompt
from stages.core.sampling import Decoding
from stages.errors import InputError
from stages.runtime.model import context_tokens, load_model
from stages.runtime.progress import bar
from stages.runtime.tokenizer import ChatTokenizer, load_tokenizer
from stages.schema import RESPONSE


class LoadedModel(NamedTuple):
    """A model folder in memory."""

    model: Any  # a transformers causal LM in eval mode
    tokenizer: ChatTokenizer


def load_answering(folder: Path) -> LoadedModel:
    """Load a model folder to answer with.

    Raises:
        InputError: the folder cannot be loaded.
    """
    return LoadedModel(load_model(folder), load_tokenizer(folder))


def answer_prompts(loaded: LoadedModel, prompts: pl.DataFrame, decoding: Decoding, *, responder: str) -> pl.DataFrame:
    """Answer every prompt `n_samples` times.

    Args:
        loaded: with a chat format the answer ends with EOT, without one (an untuned base) with EOS.
        prompts: PROMPT rows.
        decoding: the sampling parameters.
        responder: name written to the rows.

    Returns:
        RESPONSE rows sorted by prompt and sample.

    Raises:
        InputError: there are no prompts.
    """
    if prompts.is_empty():
        raise InputError(f"{responder}: no prompts to answer; ask for some in section `prompts` of params.yaml")
    from stages.core.decoding import decode_batch

    model, tokenizer = loaded
    jobs = []
    for row in prompts.iter_rows(named=True):
        ids = render_prompt(
            row["messages"], encode=tokenizer.encode, prefix_ids=tokenizer.prefix_ids, eot_id=tokenizer.eot_id
        )
        jobs += [(row["id"], sample, ids) for sample in range(decoding.n_samples)]
    rows = []
    with bar(desc=f"answer {responder}", total=len(jobs), unit="answer") as shown:
        for batch in _batches(jobs, size=decoding.batch_size):
            answers = decode_batch(
                model,
                [ids for _, _, ids in batch],
                [stream(decoding.seed, prompt_id, sample) for prompt_id, sample, _ in batch],
                decoding=decoding,
                stop_ids=tokenizer.stop_ids,
                context_tokens=context_tokens(model),
            )
            for (prompt_id, sample, _), answer in zip(batch, answers, strict=True):
                rows.append(
                    {
                        "prompt_id": prompt_id,
                        "responder": responder,
                        "sample": sample,
                        "response": tokenizer.decode(answer.ids).strip(),
                        "finish_reason": tokenizer.finish_reason(answer.stop_id),
                        "n_tokens": len(answer.ids),
                    }
                )
            shown.update(len(batch))
    return pl.DataFrame(rows, schema=dict(RESPONSE)).sort("prompt_id", "sample")


def stream(seed: int, prompt_id: str, sample: int) -> np.random.Generator:
    """The uniform numbers of one answer: they follow from seed, prompt and sample alone."""
    digest = hashlib.blake2b(f"{seed}\0{prompt_id}\0{sample}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _batches(jobs: Sequence[tuple[str, int, list[int]]], *, size: int) -> Iterator[list[Any]]:
    """Batches of like length, the longest first: memory runs out at once or never."""
    ordered = sorted(jobs, key=lambda job: (-len(job[2]), job[0], job[1]))
    for start in range(0, len(ordered), size):
        yield list(ordered[start : start + size])
