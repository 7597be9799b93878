"""Prompts in, answers out, by a model folder: used wherever a model answers."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from stages.common.errors import InputError
from stages.core.chat import render_prompt
from stages.core.sampling import Decoding, entropy
from stages.runtime.answer_log import AnswerLog, KeptAnswer, answer_key
from stages.runtime.model import check_model_folder, context_tokens, load_model
from stages.runtime.placement import place
from stages.runtime.progress import bar
from stages.runtime.tokenizer import ChatTokenizer, load_tokenizer
from stages.schema import RESPONSE

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class Form(NamedTuple):
    """Another way to put a prompt."""

    write: Callable[[Sequence[Mapping[str, str]]], str]  # a dialogue that ends with the user's turn, as text
    stop: str  # the text that ends an answer, and is no part of it


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


def answer_prompts(
    answerer: Answerer, prompts: pl.DataFrame, decoding: Decoding, *, responder: str, form: Form | None = None
) -> pl.DataFrame:
    """Answer every prompt `n_samples` times; an answer that ended is kept, and is not given again by a later run.

    Args:
        answerer: with a chat format the answer ends with EOT, without one (an untuned base) with EOS.
        prompts: PROMPT rows.
        decoding: the sampling parameters.
        responder: name written to the rows.
        form: how prompts are written, in place of the model's chat format or plain text.

    Returns:
        RESPONSE rows sorted by prompt and sample.

    Raises:
        InputError: there are no prompts, the model cannot be loaded, the form leaves no room for an answer, or one
            answer alone takes too much memory.
    """
    if prompts.is_empty():
        raise InputError(f"{responder}: no prompts to answer; ask for some in section `prompts` of params.yaml")
    tokenizer = answerer.tokenizer
    jobs = []
    for row in prompts.iter_rows(named=True):
        if form is None:
            ids = render_prompt(
                row["messages"], encode=tokenizer.encode, prefix_ids=tokenizer.prefix_ids, eot_id=tokenizer.eot_id
            )
        else:
            ids = [*tokenizer.prefix_ids, *tokenizer.encode(form.write(row["messages"]))]
        jobs += [(row["id"], sample, ids) for sample in range(decoding.n_samples)]
    stop = form.stop if form else None
    answers = _answers(answerer, jobs, decoding, responder=responder, stop=stop)
    rows = []
    for (prompt_id, sample, _), answer in zip(jobs, answers, strict=True):
        response, finish_reason = tokenizer.decode(answer.ids), tokenizer.finish_reason(answer.stop_id)
        if stop and stop in response:
            response, finish_reason = response.partition(stop)[0], "stop"
        rows.append(
            {
                "prompt_id": prompt_id,
                "responder": responder,
                "sample": sample,
                "response": response.strip(),
                "finish_reason": finish_reason,
                "n_tokens": len(answer.ids),
            }
        )
    return pl.DataFrame(rows, schema=dict(RESPONSE)).sort("prompt_id", "sample")


def _answers(
    answerer: Answerer,
    jobs: list[tuple[str, int, list[int]]],
    decoding: Decoding,
    *,
    responder: str,
    stop: str | None,
) -> list[KeptAnswer]:
    """One answer a job (prompt id, sample, token ids), in their order; `stop` is a text that ends one."""
    log = AnswerLog.of(answerer.folder, decoding, answerer.tokenizer.stop_ids, stop=stop)
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

            room = context_tokens(answerer.model)
            if stop and min(len(ids) for _, _, ids in jobs) >= room:
                raise InputError(
                    f"{answerer.folder}: a prompt with its examples must leave room for an answer, got at least "
                    f"{min(len(ids) for _, _, ids in jobs)} tokens in a context of {room}; take a base with a longer "
                    f"context, or shorten the examples"
                )
            decoded = decode(
                answerer.model,
                [Job(jobs[i][2], entropy(decoding.seed, *jobs[i][:2])) for i in todo],
                decoding=decoding,
                stop_ids=answerer.tokenizer.stop_ids,
                context_tokens=room,
                is_ended=None if stop is None else partial(_ends_with, stop, answerer.tokenizer),
            )
            try:
                for at, answer in decoded:
                    log.keep(keys[todo[at]], KeptAnswer(*answer))
                    shown.update()
            except torch.OutOfMemoryError:
                raise InputError(
                    f"{answerer.folder}: one answer of {decoding.max_new_tokens} tokens must fit in the memory of the "
                    f"GPU, got none left; lower max_new_tokens, or set precision to bf16"
                ) from None
    return [log.kept[key] for key in keys]


def _ends_with(stop: str, tokenizer: ChatTokenizer, ids: list[int]) -> bool:
    """Whether an answer has just reached a text; its last tokens are enough to see it."""
    return stop in tokenizer.decode(ids[-4 * len(stop) :])
