"""Prompts in, answers out, by an OpenAI-compatible endpoint: another system, or one that serves our own checkpoints."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import polars as pl

from stages.core.reply import Reply, Unanswered
from stages.core.sampling import Decoding, entropy
from stages.errors import InputError, JudgeError
from stages.runtime.answer_log import model_digest
from stages.runtime.endpoint import Endpoint, Request, ask
from stages.schema import RESPONSE

Setting = Literal["temperature", "top_p", "repetition_penalty", "seed"]


class Generator(Endpoint):
    """An endpoint that answers prompts."""

    send: list[Setting]  # which settings of the decoding it is sent; others it would refuse, or has its own

    def serving(self, folder: Path) -> "Generator":
        """The same for one model folder, whose path stands for {folder} in the name of the model."""
        return self.model_copy(update={"model": self.model.replace("{folder}", str(folder))})


class Answering(Decoding):
    """How answers are drawn, and by whom."""

    endpoint: Generator | None  # null: the model folder answers here


def ask_checkpoint(
    generator: Generator, folder: Path, prompts: pl.DataFrame, decoding: Decoding, *, responder: str
) -> pl.DataFrame:
    """What `ask_prompts` gives, of an endpoint that serves one of our model folders."""
    return ask_prompts(generator.serving(folder), prompts, decoding, responder=responder, of=model_digest(folder))


def ask_prompts(
    generator: Generator, prompts: pl.DataFrame, decoding: Decoding, *, responder: str, system: str = "", of: str = ""
) -> pl.DataFrame:
    """Ask for `n_samples` answers to every prompt; an answer that came is kept, and is not asked for again.

    Args:
        generator: whom, and what it is told of the decoding.
        prompts: PROMPT rows.
        decoding: the sampling parameters.
        responder: name written to the rows.
        system: the system message; empty: none.
        of: names the weights that the endpoint serves, where we know them; other weights are asked anew.

    Returns:
        RESPONSE rows sorted by prompt and sample.

    Raises:
        InputError: there are no prompts.
        JudgeError: the endpoint cannot go on, or gave no answer to a prompt.
    """
    if prompts.is_empty():
        raise InputError(f"{responder}: no prompts to answer; ask for some in section `prompts` of params.yaml")
    head = [{"role": "system", "content": system}] if system else []
    jobs = [(row, sample) for row in prompts.iter_rows(named=True) for sample in range(decoding.n_samples)]
    requests = []
    for row, sample in jobs:
        draw = entropy(decoding.seed, row["id"], sample)
        repeat = int.from_bytes(hashlib.blake2b(f"{of}\0{draw}".encode(), digest_size=8).digest(), "big")
        sampling = _sampling(decoding, generator.send, draw=draw)
        requests.append(Request([*head, *row["messages"]], sampling, lambda _reply: True, repeat))
    replies = ask(requests, generator, desc=f"answer {responder}")
    unanswered = [reply for reply in replies if isinstance(reply, Unanswered) and reply.unscored_reason == "unanswered"]
    if unanswered:
        raise JudgeError(
            f"{generator.base_url} ({generator.model}): must answer every prompt, got none to {len(unanswered)} of "
            f"{len(replies)}, last {unanswered[-1].message}; run again, finished answers are kept"
        )
    rows = [
        {"prompt_id": row["id"], "responder": responder, "sample": sample, **_answer(reply)}
        for (row, sample), reply in zip(jobs, replies, strict=True)
    ]
    return pl.DataFrame(rows, schema=dict(RESPONSE)).sort("prompt_id", "sample")


def _sampling(decoding: Decoding, send: list[Setting], *, draw: int) -> dict[str, Any]:
    """Arguments of chat.completions.create. The protocol has no repetition penalty; servers that do take it beside."""
    values: dict[str, Any] = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": draw % 2**31}
    sampling: dict[str, Any] = {name: value for name, value in values.items() if name in send}
    if "repetition_penalty" in send:
        sampling["extra_body"] = {"repetition_penalty": decoding.repetition_penalty}
    return {**sampling, "max_completion_tokens": decoding.max_new_tokens}


def _answer(reply: Reply | Unanswered) -> dict[str, Any]:
    """response, finish_reason and n_tokens. What a filter held back is an answer without a text."""
    if isinstance(reply, Unanswered):
        reason = "refused" if reply.unscored_reason == "refused" else "length"
        return {"response": "", "finish_reason": reason, "n_tokens": None}
    if reply.finish_reason == "content_filter":
        reason = "refused"
    else:
        reason = "length" if reply.finish_reason == "length" else "eot"
    return {
        "response": (reply.refusal or reply.text).strip(),
        "finish_reason": reason,
        "n_tokens": reply.n_reply_tokens,
    }
