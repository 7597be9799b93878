"""sft: fine-tune on one arm's training set, all weights or LoRA's, and keep the candidate epochs.

Reads models/base and data/render/<arm>.parquet (RENDERED).
Writes models/sft/<arm>/epoch_NN/ (complete model folders, weights only), data/sft/<arm>/loss.csv, and
metrics/sft/<arm>/run.json: versions, hardware and times, which no stage reads. What a run that was killed goes on from
is kept under .cache/sft/<arm>/ until the outs are whole (stages/runtime/training_state.py). Before the first step the
heaviest batch and a candidate are tried (stages/runtime/preflight.py), and both shown beside what was expected.

LIMA s3: standard supervised loss on all weights, 15 epochs, AdamW (0.9, 0.95), weight decay 0.1, lr linear from 1e-5 to
1e-6 without warm-up, residual dropout rising over the layers, a new EOT token. *Our reading*: the loss of a step is the
sum over its supervised tokens over their number; weight decay on matrices but not on embeddings and norms; the EOT's
embedding starts as the mean of the others. LoRA is not the paper's: stages/core/low_rank.py says what it trains; the
candidates are plain models all the same, its matrices added to those of the base.
"""

import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl
from pydantic import Field, model_validator

from stages.common.errors import InputError, ParamsError
from stages.common.files import CACHE, read_json, read_table, write_csv, write_json
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.arms import Arm
from stages.core.chat import ChatFormat
from stages.core.schedule import Step, schedule, steps_per_epoch
from stages.core.topology import PROCESSES, STRATEGY, Rank, hosts_of, rank_of
from stages.core.training_cost import (
    FILL,
    SHARDED,
    STRATEGIES,
    Disk,
    Run,
    Setting,
    Shape,
    choose,
    disk,
    gb,
    gib,
    memory,
)
from stages.runtime.launch import end_with_parent, itself, launch
from stages.runtime.model import check_model_folder, save_model
from stages.runtime.progress import bar
from stages.runtime.shapes import read_shape
from stages.runtime.tokenizer import ChatTokenizer, load_tokenizer
from stages.runtime.training_state import EVERY_S, TrainingState, key_of, linked, read_records, step_of
from stages.schema import RENDERED

if TYPE_CHECKING:
    import torch

    from stages.core.packed_loss import SupervisedLoss
    from stages.runtime.run_record import Times
    from stages.runtime.training import Recipe, Work

STATE = "LIMA_STATE"  # environment of the processes that the stage starts: the folder of the training state


# Modules that the weights follow from: an interrupted run does not go on with another version of them.
CODE = (
    "core/low_rank", "core/packed_attention", "core/packed_loss", "core/packing", "core/replicas",
    "core/residual_dropout", "core/schedule", "runtime/ranks", "runtime/training",
)  # fmt: skip


class LoraParams(Section):
    """Section `sft.lora`."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)


class Params(Section):
    """Section `sft`."""

    seed: int = Field(ge=0)
    method: Literal["full", "lora"]
    lora: LoraParams
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
    matrices = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad(), whole_weights(list(matrices.values())):
        for weight in matrices.values() if tokenizer.has_new_eot else ():
            weight[eot_id] = weight[:eot_id].float().mean(0).to(weight.dtype)
    model.generation_config.eos_token_id = sorted(tokenizer.stop_ids, key=lambda token: token != eot_id)
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.eos_id


@contextmanager
def whole_weights(weights: list[Any]) -> Iterator[None]:
    """Weights as they are for writing, though ZeRO-3 has sharded them."""
    if not any(hasattr(weight, "ds_id") for weight in weights):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(weights, modifier_rank=0):
        yield


def parameter_groups(model: Any, *, weight_decay: float) -> list[dict[str, Any]]:  # noqa: ANN401
    """Weight decay on matrices that are trained; none on embeddings, norms and biases."""
    embeddings = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    decayed: list[Any] = []
    others: list[Any] = []
    for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
        shape = getattr(parameter, "ds_shape", parameter.shape)  # ZeRO-3 leaves a shard without form in its place
        (decayed if len(shape) >= 2 and id(parameter) not in embeddings else others).append(parameter)
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
    for step in steps_of(examples, params, arm):
        if step.step <= n_done:
            continue
        work = work_of(step, examples, params, engine)
        check = partial(check_step, step=step, examples=examples, vocab_size=engine.vocab_size)
        done = engine.take(work, check)
        yield step, Record(step.step, step.epoch, done.loss, step.lr, work.n_tokens, done.grad_norm)


def steps_of(examples: Examples, params: Params, arm: ArmParams) -> Iterator[Step]:
    """Every step of the run."""
    return schedule(
        len(examples.ids),
        epochs=arm.epochs,
        global_batch_size=params.global_batch_size,
        lr=params.lr,
        lr_end=params.lr_end,
        seed=params.seed,
    )


def work_of(step: Step, examples: Examples, params: Params, engine: Any) -> "Work":  # noqa: ANN401
    """Pack a step's examples for the workers; of the packs, only those of this process are made."""
    from stages.core.packed_loss import n_chunks
    from stages.core.packing import pack, share_out
    from stages.runtime.training import Work

    ids, masks = examples.input_ids, examples.loss_masks
    plan = share_out(step.examples, examples.lengths, max_tokens=params.micro_batch_tokens, n_workers=engine.n_workers)
    return Work(
        seed=params.seed,
        step=step.step,
        lr=step.lr,
        packs=[[pack(part, ids, masks) for part in worker] for worker in plan[engine.mine]],
        n_parts=[
            max(n_chunks(sum(examples.n_supervised[i] for i in part), engine.vocab_size) for part in parts)
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


def to_train(base: Path, tokenizer: ChatTokenizer, params: Params, engine: Any) -> Any:  # noqa: ANN401
    """Load the base as an engine does, with an EOT; with LoRA frozen, in the precision that the run computes in."""
    import torch

    from stages.core.low_rank import add_low_rank

    is_lora = params.method == "lora"
    dtype = torch.bfloat16 if is_lora and engine.recipe.is_bf16 else engine.dtype
    model = engine.read(base, dtype)
    add_eot(model, tokenizer)
    if is_lora:
        assert tokenizer.eot_id is not None, "the tokenizer carries the chat format"
        rank, alpha, token = params.lora.rank, params.lora.alpha, tokenizer.eot_id
        add_low_rank(model, rank=rank, alpha=alpha, token=token, seed=params.seed, dtype=engine.dtype)
    return model


def make_ready(model: Any, params: Params) -> "SupervisedLoss":  # noqa: ANN401
    """Give a model residual dropout, packed attention and checkpointing, and make one module of it and its loss.

    Raises:
        InputError: the model's blocks take no residual dropout, or it cannot attend to packed rows.
    """
    from stages.core.packed_attention import NAME, register
    from stages.core.packed_loss import SupervisedLoss
    from stages.core.residual_dropout import add_residual_dropout

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
    return SupervisedLoss(model, streams)


def save_epoch(engine: Any, tokenizer: ChatTokenizer, folder: Path) -> "dict[str, torch.Tensor] | None":  # noqa: ANN401
    """Write a complete model folder; it appears under its name only when it is whole, in place of one before.

    Weights are saved in the precision that the run computes in. Called by every process; the first writes, and gives
    what it wrote.
    """
    import torch

    from stages.core.low_rank import merged

    weights: dict[str, torch.Tensor] | None = engine.weights()
    if weights is None:
        return None
    weights = merged(engine.model, weights)
    if engine.recipe.is_bf16:
        weights = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(engine.model, partial, weights=weights)
    tokenizer.save(partial)
    check_model_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return weights


def main(arm: str) -> None:
    """Train one arm, in this process or in those that it starts."""
    params = load_params("sft", Params)
    load_params(f"arms.{arm}", Arm)
    arm_params = load_params(f"arms.{arm}.sft", ArmParams)
    eot = load_params("render", ChatFormat).eot
    rendered = read_table(Path(f"data/render/{arm}.parquet"), RENDERED)
    longest = int(rendered["n_tokens"].max() or 0)  # type: ignore[arg-type]
    check_lengths(longest, params, arm=arm)
    rank = rank_of(os.environ)
    if STATE in os.environ and rank:  # this stage has started the process
        strategy, state = os.environ[STRATEGY], Path(os.environ[STATE])
        end_with_parent()
    else:  # nobody, or another launcher
        hosts = hosts_of(os.environ)
        n_on_host = rank.n_on_host if rank else processes()
        n_all = rank.world_size if rank else hosts.n * n_on_host
        shape = read_shape(Path("models/base"))
        strategy = strategy_of(shape, params, n_all=n_all, n_on_host=n_on_host, longest=longest)
        state = CACHE / "sft" / arm / inputs_key(arm, params, arm_params, eot, strategy, n_all)
        n_candidates = len(arm_params.candidate_epochs)
        check_disk(disk(shape, setting_of(params), n_candidates=n_candidates), TrainingState(state))
        if rank is None and (n_all > 1 or strategy.startswith(SHARDED)):  # which want a process group, of one too
            extra = {STRATEGY: strategy, STATE: str(state.absolute())}
            launch(itself("stages.sft", arm), hosts, n_on_host, extra=extra)
            return
        rank = rank or Rank(0, 1, 0, 1)
    train_arm(arm, rendered, params, arm_params, eot, engine_of(strategy, params, rank), TrainingState(state))


def processes() -> int:
    """Processes of this host: one for each GPU; on CPU one, unless more are asked for.

    Raises:
        ParamsError: the environment asks for what there is not.
    """
    import torch

    n_gpus = torch.cuda.device_count()
    asked = os.environ.get(PROCESSES, "")
    if asked and not (asked.isdecimal() and int(asked) >= 1):
        raise ParamsError(f"{PROCESSES}: must be a number of processes from 1, got {asked!r}; correct or unset it")
    n_processes = int(asked) if asked else max(1, n_gpus)
    if n_gpus and n_processes > n_gpus:
        raise ParamsError(f"{PROCESSES}: {n_processes} processes, and {n_gpus} GPUs here; lower it")
    return n_processes


def strategy_of(shape: Shape, params: Params, *, n_all: int, n_on_host: int, longest: int) -> str:
    """The strategy that is asked for, or the first that fits the memory there is.

    Raises:
        ParamsError: the environment asks for what there is not.
        InputError: nothing fits the model.
    """
    import torch

    from stages.runtime.machine import device_bytes, host_bytes

    asked = os.environ.get(STRATEGY, "")
    if asked and asked not in STRATEGIES:
        raise ParamsError(f"{STRATEGY}: must be one of {', '.join(STRATEGIES)}, got {asked!r}; correct or unset it")
    setting, room, host = setting_of(params), device_bytes(n_on_host), host_bytes()
    needs = f"models/base: {shape.n_weights / 1e9:.3g} B weights and {params.micro_batch_tokens} tokens a forward pass"
    if torch.cuda.is_available():
        found = asked or choose(
            shape, setting, n_processes=n_all, n_on_host=n_on_host, device_bytes=room, host_bytes=host
        )  # fmt: skip
        if found is None:
            raise InputError(
                f"{needs} do not fit {n_all} x {gib(room)}, nor with the optimizer in {gib(host)} of host memory; "
                f"{way_out('zero3-offload', params, longest)}"
            )
    else:
        found = asked or ("single" if n_all == 1 else "ddp")
        needed = memory(shape, setting, found, n_processes=n_all, n_on_host=n_on_host).device
        if needed > FILL * room:
            raise InputError(
                f"{needs} need {gib(needed)} and a process has {gib(room)}; {way_out(None, params, longest)}"
            )
    if found == "zero3-offload" and params.optimizer == "sgd":
        raise ParamsError("params.yaml: sft.optimizer: zero3-offload, which the model needs, has adamw alone, got sgd")
    return found


def way_out(strategy: str | None, params: Params, longest: int) -> str:
    """What a user can do where memory does not suffice."""
    from stages.core.preflight import remedies

    return remedies(
        strategy,
        checkpoints=params.gradient_checkpointing,
        micro_batch_tokens=params.micro_batch_tokens,
        longest=longest,
        is_lora=params.method == "lora",
    )


def check_disk(written: Disk, state: TrainingState) -> None:
    """Refuse a run whose candidates and states have no room.

    Args:
        written: bytes of all candidates and of two states.
        state: where they go; what an interrupted run has written there has its room already.

    Raises:
        InputError: saying what is needed and what is there.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free + state.n_bytes()
    states = written.state if state.keeps else 0
    if written.candidates + states > free:
        raise InputError(
            f"{CACHE}: {gb(written.candidates)} of candidate epochs and {gb(states)} of training state have no room in "
            f"{gb(free)}; free space, name fewer candidate_epochs, or set {EVERY_S}=inf to keep no training state"
        )


def setting_of(params: Params) -> Setting:
    """What of the section decides the cost."""
    return Setting(
        is_bf16=params.precision == "bf16",
        micro_batch_tokens=params.micro_batch_tokens,
        gradient_checkpointing=params.gradient_checkpointing,
        has_moments=params.optimizer == "adamw",
        rank=params.lora.rank if params.method == "lora" else None,
    )


def engine_of(strategy: str, params: Params, rank: Rank) -> Any:  # noqa: ANN401
    """What carries out the steps; made before the model is loaded, as ZeRO-3 shards it on the way."""
    import torch

    from stages.runtime.ranks import Accelerated
    from stages.runtime.training import Threads

    if rank.world_size == 1 and strategy == "single" and not torch.cuda.is_available():
        return Threads(recipe_of(params))
    return Accelerated(strategy, recipe_of(params), rank)


def check_lengths(longest: int, params: Params, *, arm: str) -> None:
    """Refuse examples that have no room.

    Raises:
        InputError: the base has too few positions.
        ParamsError: a forward pass has.
    """
    positions = read_json(Path("models/base/config.json")).get("max_position_embeddings", longest)
    if longest > positions:
        raise InputError(
            f"data/render/{arm}.parquet: an example has {longest} tokens, the base has {positions} "
            "positions; lower render.max_tokens"
        )
    if longest > params.micro_batch_tokens:
        raise ParamsError(
            f"params.yaml: sft.micro_batch_tokens: must hold the longest example of data/render/{arm}.parquet, "
            f"{longest} tokens, got {params.micro_batch_tokens}; raise it"
        )


def train_arm(
    arm: str,
    rendered: pl.DataFrame,
    params: Params,
    arm_params: ArmParams,
    eot: str,
    engine: Any,  # noqa: ANN401
    state: TrainingState,
) -> None:
    """Train with an engine, and write the outs."""
    from stages.runtime.preflight import told_of_no_room
    from stages.runtime.run_record import Times, record

    times, examples = Times(), read_examples(rendered)
    with told_of_no_room(lambda: no_room(engine, params, max(examples.lengths))):
        base = Path("models/base")
        tokenizer = load_tokenizer(base).with_eot(eot)
        engine.prepare(make_ready(to_train(base, tokenizer, params, engine), params))
        if engine.is_main:
            state.begin()
        engine.wait()
        try:
            records = run(engine, tokenizer, examples, params, arm_params, state, times, arm=arm)
        finally:
            engine.close()
    if not engine.is_main:
        return
    out = Path(f"models/sft/{arm}")
    shutil.rmtree(out, ignore_errors=True)  # epochs of an earlier run by hand
    for epoch in arm_params.candidate_epochs:
        linked(state.epoch(epoch), out / state.epoch(epoch).name)
    lr = pl.Series("lr", [f"{record.lr:.6g}" for record in records])  # of 1e-6 six decimals would leave one digit
    write_csv(Path(f"data/sft/{arm}/loss.csv"), pl.DataFrame(records).drop("grad_norm").with_columns(lr))
    write_json(Path(f"metrics/sft/{arm}/run.json"), record(engine, run_of(examples, params, arm_params), times))
    state.end()


def run(
    engine: Any,  # noqa: ANN401
    tokenizer: ChatTokenizer,
    examples: Examples,
    params: Params,
    arm_params: ArmParams,
    state: TrainingState,
    times: "Times",
    *,
    arm: str,
) -> list[Record]:
    """Train to the end from where an interrupted run stopped, keeping the candidate epochs in the state's folder.

    Args:
        engine: what carries out the steps; holds the model.
        tokenizer: goes into the candidates' folders.
        examples: the training set.
        params: section `sft`.
        arm_params: section `arms.<arm>.sft`.
        state: the folder.
        times: told what the time goes to.
        arm: named in what is shown.
    """
    from stages.runtime.speed import Speed

    n_each = steps_per_epoch(len(examples.ids), global_batch_size=params.global_batch_size)
    records: list[Record] = []
    newest = state.newest([(epoch, epoch * n_each) for epoch in arm_params.candidate_epochs])
    if not engine.same(step_of(newest) if newest else 0):
        raise InputError(
            f"{state.folder}: the hosts hold training states of different steps; let them share .cache, or remove the "
            "folder on all"
        )
    if newest is not None:
        engine.load(newest)
        records = [Record(*row) for row in read_records(newest)]
        if engine.is_main:
            print(f"sft {arm}: goes on after step {len(records)}", file=sys.stderr)
            times.go_on(state.folder)
    else:
        with times.of("preflight"):
            preflight(engine, tokenizer, examples, params, arm_params, state, arm=arm)
    n_kept = len(records)
    speed = Speed(Path("models/base"), n_processes=engine.n_workers, rank=setting_of(params).rank)
    with times.of("train"), bar(desc=f"sft {arm}", total=arm_params.epochs * n_each, unit="step") as shown:
        shown.update(len(records))
        try:
            for step, record in train(engine, examples, params, arm_params, n_done=len(records)):
                records.append(record)
                pace = speed.after([examples.lengths[i] for i in step.examples])
                shown.set_postfix(epoch=step.epoch, loss=f"{record.loss:.3f}", lr=f"{record.lr:.1e}", **pace)
                shown.update()
                if step.ends_epoch and step.epoch in arm_params.candidate_epochs:
                    with times.of("save"):
                        save_epoch(engine, tokenizer, state.epoch(step.epoch))
                if engine.agree(state.due()):
                    with times.of("save"):
                        state.keep(step.step, engine, records)
                    n_kept = len(records)
                    if engine.is_main:
                        times.keep(state.folder)
        except InputError:
            if len(records) > n_kept:  # a step that was refused changed no weight
                state.keep(len(records), engine, records)
            raise
    return records


def preflight(
    engine: Any,  # noqa: ANN401
    tokenizer: ChatTokenizer,
    examples: Examples,
    params: Params,
    arm_params: ArmParams,
    state: TrainingState,
    *,
    arm: str,
) -> None:
    """Try the heaviest step and a candidate, and show what they took beside what was expected; in every process.

    Raises:
        InputError: what was saved is not what is loaded, or the candidates have no room on the disk.
    """
    from stages.core.preflight import heaviest, table
    from stages.runtime.machine import device_bytes
    from stages.runtime.preflight import expected, found, rehearse

    steps, n_workers = steps_of(examples, params, arm_params), engine.n_workers
    step = heaviest(steps, examples.lengths, max_tokens=params.micro_batch_tokens, n_workers=n_workers)
    work = work_of(step, examples, params, engine)
    trial = rehearse(engine, work, partial(save_epoch, engine, tokenizer), state.folder / ".preflight")
    if not engine.is_main:
        return
    run = run_of(examples, params, arm_params)
    tried = [examples.lengths[i] for i in step.examples]
    measured = found(engine, run, trial, tried, keeps_states=state.keeps)
    room = device_bytes(engine.rank.n_on_host)
    print(table(expected(engine, run), measured, arm=arm, memory_bytes=room, run=run), file=sys.stderr)
    written = disk(run.shape, run.setting, n_candidates=run.n_candidates)
    check_disk(written._replace(candidates=run.n_candidates * trial.candidate_bytes), state)


def run_of(examples: Examples, params: Params, arm_params: ArmParams) -> Run:
    """What decides the cost of a run."""
    lengths = [examples.lengths[i] for step in steps_of(examples, params, arm_params) for i in step.examples]
    n_steps = arm_params.epochs * steps_per_epoch(len(examples.ids), global_batch_size=params.global_batch_size)
    shape = read_shape(Path("models/base"))
    return Run(shape, setting_of(params), lengths, n_steps, len(arm_params.candidate_epochs))


def no_room(engine: Any, params: Params, longest: int) -> str:  # noqa: ANN401
    """Say that memory ran out, and what helps."""
    import torch

    from stages.runtime.machine import device_bytes

    strategy = engine.strategy if torch.cuda.is_available() else None
    return (
        f"out of memory with {params.micro_batch_tokens} tokens a forward pass, strategy {engine.strategy} and "
        f"{gib(device_bytes(engine.rank.n_on_host))} a process; {way_out(strategy, params, longest)}"
    )


def inputs_key(arm: str, params: Params, arm_params: ArmParams, eot: str, strategy: str, n_processes: int) -> str:
    """Hash of what a trained model follows from.

    How the work is shared is a part: sums round by it, and a sharded state fits its own number of processes only.
    """
    import torch

    folder = Path(__file__).parent
    code = [folder / f"{name}.py" for name in ("sft", *CODE)]
    files = [*Path("models/base").iterdir(), Path(f"data/render/{arm}.parquet"), *code]
    recipe = [params.model_dump(), arm_params.model_dump(), eot]
    n_threads = 0 if torch.cuda.is_available() else torch.get_num_threads()  # hosts with GPUs may differ in cores
    return key_of(files, recipe, torch.__version__, n_threads, strategy, n_processes)


if __name__ == "__main__":
    run_stage(main, key="arm")
