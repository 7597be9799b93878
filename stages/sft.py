"""sft: fine-tune all weights on one arm's training set, and keep the candidate epochs.

Reads models/base and data/render/<arm>.parquet (RENDERED).
Writes models/sft/<arm>/epoch_NN/ (complete model folders, weights only) and data/sft/<arm>/loss.csv. What a run that
was killed goes on from is kept under .cache/sft/<arm>/ until the outs are whole (stages/runtime/training_state.py).

LIMA s3: standard supervised loss on all weights, 15 epochs, AdamW (0.9, 0.95), weight decay 0.1, lr linear from 1e-5 to
1e-6 without warm-up, residual dropout rising over the layers, a new EOT token. *Our reading*: the loss of a step is the
sum over its supervised tokens over their number; weight decay on matrices but not on embeddings and norms; the EOT's
embedding starts as the mean of the others.
"""

import math
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl
from pydantic import Field, model_validator

from stages.core.chat import ChatFormat
from stages.core.schedule import Step, schedule, steps_per_epoch
from stages.core.section import Section
from stages.errors import InputError, ParamsError
from stages.runtime.files import CACHE, read_table, write_csv
from stages.runtime.main import run_stage
from stages.runtime.model import check_model_folder, context_tokens, load_model, save_model
from stages.runtime.params import load_params
from stages.runtime.progress import bar
from stages.runtime.tokenizer import ChatTokenizer, load_tokenizer
from stages.runtime.training_state import TrainingState, key_of, linked, read_records
from stages.schema import RENDERED

if TYPE_CHECKING:
    from stages.runtime.training import Recipe, Work


# Modules of stages/core that the weights follow from: an interrupted run does not go on with another version of them.
CODE = ("packed_attention", "packed_loss", "packing", "replicas", "residual_dropout", "schedule")


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
    micro_batch_tokens: int = Field(ge=1)  # tokens
    gradient_checkpointing: bool
    optimizer: Literal["adamw", "sgd"]
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


class Record(NamedTuple):
    """What a step was like; all but the last is a row of loss.csv."""

    step: int
    epoch: int
    loss: float  # nats a supervised token
    lr: float
    n_supervised_tokens: int
    grad_norm: float  # before clipping


class Examples(NamedTuple):
    """The training set in memory; lists in the order of the table."""

    ids: list[str]
    input_ids: list[list[int]]
    loss_masks: list[list[int]]
    lengths: list[int]  # tokens
    n_supervised: list[int]  # tokens


def read_examples(rendered: pl.DataFrame) -> Examples:
    """Take what training needs from RENDERED rows."""
    from stages.core.packing import n_supervised

    input_ids, loss_masks = rendered["input_ids"].to_list(), rendered["loss_mask"].to_list()
    return Examples(
        rendered["id"].to_list(), input_ids, loss_masks, list(map(len, input_ids)), list(map(n_supervised, loss_masks))
    )


def recipe_of(params: Params) -> "Recipe":
    """How weights follow from gradients."""
    import torch

    from stages.runtime.training import Recipe

    def optimizer(model: Any) -> torch.optim.Optimizer:  # noqa: ANN401
        groups = parameter_groups(model, weight_decay=params.weight_decay)
        if params.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=params.lr)
        return torch.optim.AdamW(groups, lr=params.lr, betas=(params.beta1, params.beta2), fused=True)

    return Recipe(optimizer, params.max_grad_norm, params.precision == "bf16")


def train(
    engine: Any,  # noqa: ANN401
    examples: Examples,
    params: Params,
    arm: ArmParams,
    *,
    n_done: int = 0,
) -> Iterator[tuple[Step, Record]]:
    """Train, giving each step with its record for loss.csv when it is done.

    Args:
        engine: what carries out a step (stages/runtime/training.py).
        examples: the training set.
        params: section `sft`.
        arm: section `arms.<arm>.sft`.
        n_done: steps that an interrupted run has done.

    Raises:
        InputError: the loss is no number, or worse than any guess.
    """
    for step in schedule(
        len(examples.ids),
        epochs=arm.epochs,
        global_batch_size=params.global_batch_size,
        lr=params.lr,
        lr_end=params.lr_end,
        seed=params.seed,
    ):
        if step.step <= n_done:
            continue
        work = work_of(step, examples, params, n_workers=engine.n_workers, vocab_size=engine.vocab_size)
        check = partial(check_step, step=step, examples=examples, vocab_size=engine.vocab_size)
        done = engine.take(work, check)
        yield step, Record(step.step, step.epoch, done.loss, step.lr, work.n_tokens, done.grad_norm)


def work_of(step: Step, examples: Examples, params: Params, *, n_workers: int, vocab_size: int) -> "Work":
    """Pack a step's examples for the workers."""
    from stages.core.packed_loss import n_chunks
    from stages.core.packing import pack, share_out
    from stages.runtime.training import Work

    plan = share_out(step.examples, examples.lengths, max_tokens=params.micro_batch_tokens, n_workers=n_workers)
    return Work(
        seed=params.seed,
        step=step.step,
        lr=step.lr,
        packs=[[pack(part, examples.input_ids, examples.loss_masks) for part in worker] for worker in plan],
        n_parts=[
            max(n_chunks(sum(examples.n_supervised[i] for i in part), vocab_size) for part in parts)
            for parts in zip(*plan, strict=True)
        ],
        n_tokens=sum(examples.n_supervised[i] for i in step.examples),
    )


def check_step(loss: float, grad_norm: float, *, step: Step, examples: Examples, vocab_size: int) -> None:
    """Stop before a step that would ruin the weights.

    A uniform guess costs ln(vocabulary) nats a token; twice that is worse than any model that still works.

    Raises:
        InputError: naming the step and its examples.
    """
    limit = 2 * math.log(vocab_size)
    if math.isfinite(loss) and math.isfinite(grad_norm) and loss <= limit:
        return
    what = (
        f"the loss of step {step.step} is {loss:.6g}"
        if math.isfinite(grad_norm) or not math.isfinite(loss)
        else (f"the gradient of step {step.step} has norm {grad_norm}")
    )
    ids = ", ".join(examples.ids[i] for i in step.examples[:8])
    more = f" and {len(step.examples) - 8} more" if len(step.examples) > 8 else ""
    raise InputError(f"sft: {what}; lower sft.lr, or look for a damaged base or example among {ids}{more}")


@contextmanager
def started(model: Any, params: Params) -> Iterator[Any]:  # noqa: ANN401
    """Make a model ready for training, and give what carries out its steps.

    Raises:
        InputError: the model's blocks take no residual dropout, or it cannot attend to packed rows.
    """
    from stages.core.packed_attention import NAME, register
    from stages.core.packed_loss import SupervisedLoss
    from stages.core.residual_dropout import add_residual_dropout
    from stages.runtime.training import Threads

    try:
        streams = add_residual_dropout(model, p_last=params.residual_dropout)
    except ValueError as error:
        raise InputError(f"models/base: {error}; set sft.residual_dropout to 0") from None
    register()
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise InputError(
            f"models/base: {type(model).__name__} does not let its attention be chosen, so packed examples would see "
            "each other; use a base of another family"
        )
    if params.gradient_checkpointing:
        # Residual dropout draws the same numbers again by itself.
        model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    model.train()
    engine = Threads(SupervisedLoss(model, streams), recipe_of(params))
    try:
        yield engine
    finally:
        engine.close()


def save_epoch(model: Any, tokenizer: ChatTokenizer, folder: Path) -> None:  # noqa: ANN401
    """Write a complete model folder; it appears under its name only when it is whole, in place of one before."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(model, partial)
    tokenizer.save(partial)
    check_model_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def main(arm: str) -> None:
    """Train one arm."""
    params = load_params("sft", Params)
    arm_params = load_params(f"arms.{arm}.sft", ArmParams)
    eot = load_params("render", ChatFormat).eot
    rendered = read_table(Path(f"data/render/{arm}.parquet"), RENDERED)
    tokenizer = load_tokenizer(Path("models/base")).with_eot(eot)
    model = load_model(Path("models/base"))
    longest = int(rendered["n_tokens"].max() or 0)  # type: ignore[arg-type]
    if longest > context_tokens(model):
        raise InputError(
            f"data/render/{arm}.parquet: an example has {longest} tokens, the base has {context_tokens(model)} "
            "positions; lower render.max_tokens"
        )
    if longest > params.micro_batch_tokens:
        raise ParamsError(
            f"params.yaml: sft.micro_batch_tokens: must hold the longest example of data/render/{arm}.parquet, "
            f"{longest} tokens, got {params.micro_batch_tokens}; raise it"
        )
    add_eot(model, tokenizer)
    examples = read_examples(rendered)
    out = Path(f"models/sft/{arm}")
    state = TrainingState(CACHE / "sft" / arm / inputs_key(arm, params, arm_params, eot))
    state.begin()
    with started(model, params) as engine:
        records = run(engine, tokenizer, examples, params, arm_params, state, arm=arm)
    shutil.rmtree(out, ignore_errors=True)  # epochs of an earlier run by hand
    for epoch in arm_params.candidate_epochs:
        linked(state.epoch(epoch), out / state.epoch(epoch).name)
    write_csv(Path(f"data/sft/{arm}/loss.csv"), pl.DataFrame(records).drop("grad_norm"))
    state.end()


def run(
    engine: Any,  # noqa: ANN401
    tokenizer: ChatTokenizer,
    examples: Examples,
    params: Params,
    arm_params: ArmParams,
    state: TrainingState,
    *,
    arm: str,
) -> list[Record]:
    """Train to the end from where an interrupted run stopped, keeping the candidate epochs in the state's folder."""
    n_each = steps_per_epoch(len(examples.ids), global_batch_size=params.global_batch_size)
    records: list[Record] = []
    if (newest := state.newest([(epoch, epoch * n_each) for epoch in arm_params.candidate_epochs])) is not None:
        engine.load(newest)
        records = [Record(*row) for row in read_records(newest)]
        print(f"sft {arm}: goes on after step {len(records)}", file=sys.stderr)
    n_kept = len(records)
    with bar(desc=f"sft {arm}", total=arm_params.epochs * n_each, unit="step") as shown:
        shown.update(len(records))
        try:
            for step, record in train(engine, examples, params, arm_params, n_done=len(records)):
                records.append(record)
                shown.set_postfix(epoch=step.epoch, loss=f"{record.loss:.3f}", lr=f"{record.lr:.1e}")
                shown.update()
                if step.ends_epoch and step.epoch in arm_params.candidate_epochs:
                    save_epoch(engine.model, tokenizer, state.epoch(step.epoch))
                if state.due():
                    state.keep(step.step, engine.save, records)
                    n_kept = len(records)
        except InputError:
            if len(records) > n_kept:  # a step that was refused changed no weight
                state.keep(len(records), engine.save, records)
            raise
    return records


def inputs_key(arm: str, params: Params, arm_params: ArmParams, eot: str) -> str:
    """Hash of what a trained model follows from; the number of threads is a part, as sums round by it."""
    import torch

    stages = Path(__file__).parent
    code = [Path(__file__), *(stages / f"core/{name}.py" for name in CODE), stages / "runtime/training.py"]
    files = [*Path("models/base").iterdir(), Path(f"data/render/{arm}.parquet"), *code]
    recipe = [params.model_dump(), arm_params.model_dump(), eot]
    return key_of(files, recipe, torch.__version__, torch.get_num_threads())


if __name__ == "__main__":
    run_stage(main, key="arm")
