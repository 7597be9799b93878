"""Prompts in, answers out, by an OpenAI-compatible endpoint: another system, or one that serves our own checkpoints."""

import hashlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from stages.common.errors import InputError, JudgeError
from stages.core.reply import Reply, Unanswered
from stages.core.sampling import Decoding, entropy
from stages.runtime.answer_log import model_digest
from stages.runtime.api.endpoint import Endpoint, Request, ask, quote, request_key
from stages.schema import ASKED, RESPONSE

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


DRY_RUN = {"dry_run": "say what an endpoint would be asked and cost, and do nothing"}


class Questions(NamedTuple):
    """Prompts as an endpoint is asked them."""

    generator: Generator
    responder: str
    keys: list[tuple[str, int]]  # prompt id and sample
    requests: list[Request]


class Answered(NamedTuple):
    """What was answered, and what that rests on."""

    responses: pl.DataFrame  # RESPONSE, sorted by prompt and sample
    asked: pl.DataFrame  # ASKED, in the same order


def checkpoint_questions(
    generator: Generator, folder: Path, prompts: pl.DataFrame, decoding: Decoding, *, responder: str
) -> Questions:
    """What `questions` gives, to an endpoint that serves one of our model folders."""
    return questions(generator.serving(folder), prompts, decoding, responder=responder, of=model_digest(folder))


def questions(
    generator: Generator, prompts: pl.DataFrame, decoding: Decoding, *, responder: str, system: str = "", of: str = ""
) -> Questions:
    """Ask for `n_samples` answers to every prompt.

    Args:
        generator: whom, and what it is told of the decoding.
        prompts: PROMPT rows.
        decoding: the sampling parameters.
        responder: name written to the rows.
        system: the system message; empty: none.
        of: names the weights that the endpoint serves, where we know them; other weights are asked anew.

    Raises:
        InputError: there are no prompts.
    """
    if prompts.is_empty():
        raise InputError(f"{responder}: no prompts to answer; ask for some in section `prompts` of params.yaml")
    head = [{"role": "system", "content": system}] if system else []
    keys, requests = [], []
    for row in prompts.iter_rows(named=True):
        for sample in range(decoding.n_samples):
            draw = entropy(decoding.seed, row["id"], sample)
            repeat = int.from_bytes(hashlib.blake2b(f"{of}\0{draw}".encode(), digest_size=8).digest(), "big")
            sampling = _sampling(decoding, generator.send, draw=draw)
            keys.append((row["id"], sample))
            requests.append(Request([*head, *row["messages"]], sampling, lambda _reply: True, repeat))
    return Questions(generator, responder, keys, requests)


def tell_cost(asked: Questions) -> None:
    """Say what `answer` would cost, without asking."""
    quote(asked.requests, asked.generator, desc=f"answer {asked.responder}")


def answer(asked: Questions) -> Answered:
    """Get the answers; one that came is kept, and is not asked for again.

    Raises:
        JudgeError: the endpoint cannot go on, or gave no answer to a prompt.
    """
    generator = asked.generator
    replies = ask(asked.requests, generator, desc=f"answer {asked.responder}")
    unanswered = [reply for reply in replies if isinstance(reply, Unanswered) and reply.unscored_reason == "unanswered"]
    if unanswered:
        raise JudgeError(
            f"{generator.base_url} ({generator.model}): must answer every prompt, got none to {len(unanswered)} of "
            f"{len(replies)}, last {unanswered[-1].message}; run again, finished answers are kept"
        )
    rows = [
        {
            "prompt_id": prompt_id, "responder": asked.responder, "sample": sample,
            **_answer(reply), **_receipt(reply, request, generator),
        }
        for (prompt_id, sample), request, reply in zip(asked.keys, asked.requests, replies, strict=True)
    ]  # fmt: skip
    table = pl.DataFrame(rows, schema={**RESPONSE, **ASKED}).sort("prompt_id", "sample")
    return Answered(table.select(*RESPONSE), table.select(*ASKED))


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


def _receipt(reply: Reply | Unanswered, request: Request, generator: Generator) -> dict[str, Any]:
    """The columns of ASKED that are not of RESPONSE."""
    key = request_key(request, generator)
    if isinstance(reply, Unanswered):
        return {"request": key}
    cost = generator.cost_of(reply.n_prompt_tokens, reply.n_reply_tokens)
    counted = {"n_prompt_tokens": reply.n_prompt_tokens, "n_reply_tokens": reply.n_reply_tokens, "cost": cost}
    return {"request": key, "model": reply.model, **counted}
