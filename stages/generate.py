"""generate: answer the dev prompts with every candidate epoch, and measure held-out perplexity.

Reads models/sft/<arm>/epoch_NN, data/prompts/dev.parquet (PROMPT), data/sample/<arm>.heldout.parquet (EXAMPLE).
Writes data/generate/<arm>.parquet (EPOCH_RESPONSE), data/generate/<arm>.perplexity.parquet (PERPLEXITY) and
data/generate/<arm>.asked.parquet (ASKED), what an endpoint's answers cost, without rows where this machine answers.

LIMA s3 and Appendix B: perplexity rises while answers get better, so the answers choose the checkpoint. *Our reading*
of "held-out": examples drawn by the arm's own quotas that it was not trained on; the perplexity is of their responses.
An endpoint that serves the epochs answers in place of this machine; it measures no perplexity, which is null then.
"""

import math
from pathlib import Path

import polars as pl

from stages.common.errors import InputError
from stages.common.files import empty_table, read_table, write_table
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.core.chat import ChatFormat, render_example
from stages.runtime.answering import Answerer, answer_prompts
from stages.runtime.asking import DRY_RUN, Answering, answer, checkpoint_questions, tell_cost
from stages.runtime.progress import progress
from stages.schema import ASKED, EPOCH_RESPONSE, EXAMPLE, PERPLEXITY, PROMPT


class Params(Answering):
    """Section `generate`."""


def perplexity(answerer: Answerer, examples: pl.DataFrame, chat: ChatFormat) -> dict[str, float | int | None]:
    """Exponential of the mean cross-entropy, in nats a token, of the responses of `examples` (EXAMPLE rows).

    Returns:
        perplexity (null when there is no supervised token) and the n_tokens that it is a mean over.
    """
    import torch

    from stages.core.loss import collate, n_supervised, summed_loss

    model, tokenizer = answerer.model, answerer.tokenizer
    chat = chat.model_copy(update={"loss_on": "responses"})
    rendered = [
        render_example(messages, encode=tokenizer.encode, prefix_ids=tokenizer.prefix_ids, eot_id=eot_id, chat=chat)
        for messages in examples["messages"].to_list()
        if (eot_id := tokenizer.eot_id) is not None
    ]
    total, n_tokens = 0.0, 0
    for example in rendered:  # one at a time: logits of several long ones may be more than the answers left room for
        batch = collate([example.input_ids], [example.loss_mask])
        ids, mask, labels = (tensor.to(model.device) for tensor in batch)
        with torch.inference_mode():
            total += summed_loss(model(input_ids=ids, attention_mask=mask, use_cache=False).logits, labels).item()
        n_tokens += n_supervised(labels)
    return {"perplexity": math.exp(total / n_tokens) if n_tokens else None, "n_tokens": n_tokens}


def candidates(folder: Path) -> dict[int, Path]:
    """Candidate epochs of an arm, in order.

    Raises:
        InputError: there is none.
    """
    found = {int(path.name.removeprefix("epoch_")): path for path in sorted(folder.glob("epoch_*"))}
    if not found:
        raise InputError(f"{folder}: no epoch_NN in it; `dvc repro` makes them")
    return dict(sorted(found.items()))


def main(arm: str, *, dry_run: bool = False) -> None:
    """Answer and measure for every candidate epoch of one arm; asking.DRY_RUN says what the switch does."""
    params = load_params("generate", Params)
    chat = load_params("render", ChatFormat)
    prompts = read_table(Path("data/prompts/dev.parquet"), PROMPT)
    heldout = read_table(Path(f"data/sample/{arm}.heldout.parquet"), EXAMPLE)
    folders = candidates(Path(f"models/sft/{arm}"))
    if dry_run:
        for epoch, folder in folders.items():
            if params.endpoint:
                tell_cost(checkpoint_questions(params.endpoint, folder, prompts, params, responder=arm))
            else:
                print(f"answer {arm}, epoch {epoch}: costs nothing")
        return
    answers, measured, paid = [], [], [empty_table(ASKED)]
    for epoch, folder in progress(list(folders.items()), desc=arm, unit="epoch"):
        held: dict[str, float | int | None] = {"perplexity": None, "n_tokens": 0}
        if params.endpoint:  # which gives no probabilities of a given text
            responses, asked = answer(checkpoint_questions(params.endpoint, folder, prompts, params, responder=arm))
            paid.append(asked)
        else:
            answerer = Answerer(folder, precision=params.precision)
            responses = answer_prompts(answerer, prompts, params, responder=arm)
            held = perplexity(answerer, heldout, chat)
            del answerer  # before the next one looks for room
        answers.append(responses.select(pl.lit(epoch).alias("epoch"), pl.all()))
        measured.append({"epoch": epoch, **held})
    write_table(Path(f"data/generate/{arm}.parquet"), pl.concat(answers), EPOCH_RESPONSE)
    table = pl.DataFrame(measured, schema=dict(PERPLEXITY))
    write_table(Path(f"data/generate/{arm}.perplexity.parquet"), table, PERPLEXITY)
    write_table(Path(f"data/generate/{arm}.asked.parquet"), pl.concat(paid), ASKED)


if __name__ == "__main__":
    run_stage(main, key="arm", flags=DRY_RUN)
