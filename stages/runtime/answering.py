"""Prompts in, answers out, by a model folder: used wherever a model answers."""

from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from stages.core.chat import render_prompt
from stages.core.sampling import Decoding, entropy
from stages.errors import InputError
from stages.runtime.answer_log import AnswerLog, KeptAnswer, answer_key
from stages.runtime.model import check_model_folder, context_tokens, load_model
from stages.runtime.placement import place
from stages.runtime.progress import bar
from stages.runtime.tokenizer import load_tokenizer
from stages.schema import RESPONSE

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class Answerer:
    """A model folder that answers. Its weights are loaded when something is wanted that is not kept.

    Raises:
        InputError: the folder cannot be loaded.
    """

    def __init__(self, folder: Path, *, precision: str) -> None:
        check_model_folder(folder)
        self.folder = folder
        self.precision = precision
        self.tokenizer = load_tokenizer(folder)

    @cached_property
    def model(self) -> Any:  # noqa: ANN401 - a transformers causal LM in eval mode
        """The model on its device, or over all GPUs where one is too small."""
        dtype = DTYPES[self.precision]
        return load_model(self.folder, dtype=dtype, where=place(self.folder, dtype=dtype))


def answer_prompts(answerer: Answerer, prompts: pl.DataFrame, decoding: Decoding, *, responder: str) -> pl.DataFrame:
    """Answer every prompt `n_samples` times; an answer that ended is kept, and is not given again by a later run.

    Args:
        answerer: with a chat format the answer ends with EOT, without one (an untuned base) with EOS.
        prompts: PROMPT rows.
        decoding: the sampling parameters.
        responder: name written to the rows.

    Returns:
        RESPONSE rows sorted by prompt and sample.

    Raises:
        InputError: there are no prompts, the model cannot be loaded, or one answer alone takes too much memory.
    """
    if prompts.is_empty():
        raise InputError(f"{responder}: no prompts to answer; ask for some in section `prompts` of params.yaml")
    tokenizer = answerer.tokenizer
    jobs = []
    for row in prompts.iter_rows(named=True):
        ids = render_prompt(
            row["messages"], encode=tokenizer.encode, prefix_ids=tokenizer.prefix_ids, eot_id=tokenizer.eot_id
        )
        jobs += [(row["id"], sample, ids) for sample in range(decoding.n_samples)]
    answers = _answers(answerer, jobs, decoding, responder=responder)
    rows = [
        {
            "prompt_id": prompt_id,
            "responder": responder,
            "sample": sample,
            "response": tokenizer.decode(answer.ids).strip(),
            "finish_reason": tokenizer.finish_reason(answer.stop_id),
            "n_tokens": len(answer.ids),
        }
        for (prompt_id, sample, _), answer in zip(jobs, answers, strict=True)
    ]
    return pl.DataFrame(rows, schema=dict(RESPONSE)).sort("prompt_id", "sample")


def _answers(
    answerer: Answerer, jobs: list[tuple[str, int, list[int]]], decoding: Decoding, *, responder: str
) -> list[KeptAnswer]:
    """One answer a job (prompt id, sample, token ids), in their order."""
    log = AnswerLog.of(answerer.folder, decoding, answerer.tokenizer.stop_ids)
    keys = [answer_key(*job) for job in jobs]
    # The longest first: memory runs out at once or never.
    todo = sorted(
        (i for i, key in enumerate(keys) if key not in log.kept), key=lambda i: (-len(jobs[i][2]), *jobs[i][:2])
    )
    with log.writing(), bar(desc=f"answer {responder}", total=len(jobs), unit="answer") as shown:
        shown.update(len(jobs) - len(todo))
        if todo:
            import torch

            from stages.core.decoding import Job, decode

            decoded = decode(
                answerer.model,
                [Job(jobs[i][2], entropy(decoding.seed, *jobs[i][:2])) for i in todo],
                decoding=decoding,
                stop_ids=answerer.tokenizer.stop_ids,
                context_tokens=context_tokens(answerer.model),
            )
            try:
                for place, answer in decoded:
                    log.keep(keys[todo[place]], KeptAnswer(*answer))
                    shown.update()
            except torch.OutOfMemoryError:
                raise InputError(
                    f"{answerer.folder}: one answer of {decoding.max_new_tokens} tokens must fit in the memory of the "
                    f"GPU, got none left; lower max_new_tokens, or set precision to bf16"
                ) from None
    return [log.kept[key] for key in keys]
