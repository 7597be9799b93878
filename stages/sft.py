"""sft: fine-tune all weights on one arm's training set, and keep the candidate epochs.

Reads models/base and data/render/<arm>.parquet (RENDERED).
Writes models/sft/<arm>/epoch_NN/ (complete model folders, weights only) and data/sft/<arm>/loss.csv.

LIMA s3: standard supervised loss on all weights, 15 epochs, AdamW (0.9, 0.95), weight decay 0.1, lr linear from 1e-5 to
1e-6 without warm-up, residual dropout rising over the layers, a new EOT token. *Our reading*: the loss of a step is the
sum over its supervised tokens over their number; weight decay on matrices but not on embeddings and norms; the EOT's
embedding starts as the mean of the others.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field, model_validator

from stages.core.chat import ChatFormat
from stages.core.schedule import Step, micro_batches, schedule, steps_per_epoch
from stages.core.section import Section
from stages.errors import InputError, ParamsError
from stages.runtime.files import read_table, write_csv
from stages.runtime.main import run_stage
from stages.runtime.model import check_model_folder, context_tokens, load_model, save_model
from stages.runtime.params import load_params
from stages.runtime.progress import bar
from stages.runtime.tokenizer import ChatTokenizer, load_tokenizer
from stages.schema import RENDERED


class Params(Section):
    """Section `sft`."""

    seed: int = Field(ge=0)
    lr: float = Field(gt=0)
    lr_end: float = Field(ge=0)
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float | None = Field(gt=0)
    global_batch_size: int = Field(ge=1)  # examples
    micro_batch_size: int = Field(ge=1)  # examples
    residual_dropout: float = Field(ge=0, lt=1)
    precision: Literal["fp32", "bf16"]


class ArmParams(Section):
    """Section `arms.<arm>.sft`."""

    epochs: int = Field(ge=1)
    candidate_epochs: list[int] = Field(min_length=1)

    @model_validator(mode="after")
    def _candidates_are_epochs(self) -> "ArmParams":
        wrong = [epoch for epoch in self.candidate_epochs if not 1 <= epoch <= self.epochs]
        if wrong or sorted(set(self.candidate_epochs)) != self.candidate_epochs:
            raise ValueError(f"candidate_epochs in rising order between 1 and epochs ({self.epochs})")
        return self


def add_eot(model: Any, tokenizer: ChatTokenizer) -> None:  # noqa: ANN401 - a transformers model
    """Give the EOT token an embedding: the mean of the others, so that it starts as no word in particular.

    A token that the base has already, and may have trained, keeps its own.
    Rows that the base keeps in reserve beyond its tokenizer are used first; the matrix grows only where there is none.
    """
    import torch

    eot_id = tokenizer.eot_id
    assert eot_id is not None, "the tokenizer carries the chat format"
    if eot_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(eot_id + 1, mean_resizing=False)
    with torch.no_grad():
        matrices = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}
        for weight in matrices.values() if tokenizer.has_new_eot else ():
            weight[eot_id] = weight[:eot_id].float().mean(0).to(weight.dtype)
    model.generation_config.eos_token_id = sorted(tokenizer.stop_ids, key=lambda token: token != eot_id)
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.eos_id


def parameter_groups(model: Any, *, weight_decay: float) -> list[dict[str, Any]]:  # noqa: ANN401
    """Weight decay on matrices; none on embeddings, norms and biases."""
    embeddings = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    decayed = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in embeddings]
    others = [p for p in model.parameters() if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def train(
    model: Any,  # noqa: ANN401
    rendered: pl.DataFrame,
    params: Params,
    arm: ArmParams,
) -> Iterator[tuple[Step, dict[str, float]]]:
    """Train, giving each step with its record for loss.csv when it is done."""
    import torch
    from accelerate import Accelerator

    from stages.core.loss import collate, n_supervised, summed_loss

    torch.manual_seed(params.seed)
    accelerator = Accelerator(mixed_precision="bf16" if params.precision == "bf16" else "no")
    betas = (params.beta1, params.beta2)
    groups = parameter_groups(model, weight_decay=params.weight_decay)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(groups, lr=params.lr, betas=betas, fused=True))
    model.train()
    input_ids, loss_masks = rendered["input_ids"].to_list(), rendered["loss_mask"].to_list()
    lengths = [len(ids) for ids in input_ids]
    for step in schedule(
        len(rendered),
        epochs=arm.epochs,
        global_batch_size=params.global_batch_size,
        lr=params.lr,
        lr_end=params.lr_end,
        seed=params.seed,
    ):
        batches = [
            collate([input_ids[i] for i in part], [loss_masks[i] for i in part])
            for part in micro_batches(step.examples, lengths, size=params.micro_batch_size)
        ]
        n_tokens = sum(n_supervised(batch.labels) for batch in batches)
        for group in optimizer.param_groups:
            group["lr"] = step.lr
        total = 0.0
        for batch in batches:
            ids, mask, labels = (tensor.to(accelerator.device) for tensor in batch)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            loss = summed_loss(logits, labels) / n_tokens
            accelerator.backward(loss)
            total += loss.item()
        if not math.isfinite(total):
            raise InputError(f"sft: the loss of step {step.step} is {total}; lower sft.lr, or look for a damaged base")
        if params.max_grad_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), params.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield step, {"step": step.step, "epoch": step.epoch, "loss": total, "lr": step.lr, "n_tokens": n_tokens}


def save_epoch(model: Any, tokenizer: ChatTokenizer, folder: Path) -> None:  # noqa: ANN401
    """Write a complete model folder; it appears under its name only when it is whole."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(model, partial)
    tokenizer.save(partial)
    check_model_folder(partial)
    partial.replace(folder)


def main(arm: str) -> None:
    """Train one arm."""
    params = load_params("sft", Params)
    arm_params = load_params(f"arms.{arm}.sft", ArmParams)
    eot = load_params("render", ChatFormat).eot
    if params.global_batch_size % params.micro_batch_size:
        raise ParamsError(
            f"params.yaml: sft.micro_batch_size: must divide global_batch_size {params.global_batch_size}, "
            f"got {params.micro_batch_size}"
        )
    from stages.core.residual_dropout import add_residual_dropout

    rendered = read_table(Path(f"data/render/{arm}.parquet"), RENDERED)
    tokenizer = load_tokenizer(Path("models/base")).with_eot(eot)
    model = load_model(Path("models/base"))
    longest = int(rendered["n_tokens"].max() or 0)  # type: ignore[arg-type]
    if longest > context_tokens(model):
        raise InputError(
            f"data/render/{arm}.parquet: an example has {longest} tokens, the base has {context_tokens(model)} "
            "positions; lower render.max_tokens"
        )
    add_eot(model, tokenizer)
    try:
        add_residual_dropout(model, p_last=params.residual_dropout)
    except ValueError as error:
        raise InputError(f"models/base: {error}; set sft.residual_dropout to 0") from None
    out = Path(f"models/sft/{arm}")
    shutil.rmtree(out, ignore_errors=True)  # epochs of an earlier run by hand
    out.mkdir(parents=True)
    n_steps = arm_params.epochs * steps_per_epoch(len(rendered), global_batch_size=params.global_batch_size)
    records = []
    with bar(desc=f"sft {arm}", total=n_steps, unit="step") as shown:
        for step, record in train(model, rendered, params, arm_params):
            records.append(record)
            shown.set_postfix(epoch=step.epoch, loss=f"{record['loss']:.3f}")
            shown.update()
            if step.ends_epoch and step.epoch in arm_params.candidate_epochs:
                save_epoch(model, tokenizer, out / f"epoch_{step.epoch:02d}")
    write_csv(Path(f"data/sft/{arm}/loss.csv"), pl.DataFrame(records).rename({"n_tokens": "n_supervised_tokens"}))


if __name__ == "__main__":
    run_stage(main, key="arm")
