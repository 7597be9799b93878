import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from stages.common.errors import InputError, ParamsError
from stages.common.files import write_table
from stages.core.low_rank import merged
from stages.core.schedule import schedule
from stages.core.topology import Rank
from stages.render import Params as RenderParams
from stages.render import run as render
from stages.runtime.model import load_model
from stages.runtime.tokenizer import load_tokenizer
from stages.runtime.training_state import TrainingState
from stages.schema import RENDERED
from stages.sft import (
    ArmParams,
    Params,
    add_eot,
    engine_of,
    main,
    make_ready,
    parameter_groups,
    read_examples,
    to_train,
    train,
)
from tests.tiny import CHAT, SFT, examples, make_base, write_params

ROOT = Path(__file__).resolve().parents[1]
LOSS = "data/sft/curated/loss.csv"
PAIRS = [(f"Say {word}", word) for word in ("one", "two", "three", "four", "five", "six", "seven")]
ARM = {"epochs": 3, "candidate_epochs": [1, 3]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


def rendered(base):
    return render(examples(PAIRS), load_tokenizer(base).with_eot("<|eot|>"), RenderParams(**CHAT), arm="a").rendered


@pytest.fixture
def project(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(base)
    write_table(tmp_path / "data/render/curated.parquet", rendered(base), RENDERED)

    def write(arm=ARM, render=CHAT, **changes):
        write_params(tmp_path, render=render, sft={**SFT, **changes}, arms={"curated": {"sample": {}, "sft": arm}})
        return tmp_path

    return write


def weights_after(base, arm=ARM, n_threads=1, **changes):
    tokenizer = load_tokenizer(base).with_eot("<|eot|>")
    params, before = Params(**{**SFT, **changes}), torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        engine = engine_of("single", params, Rank(0, 1, 0, 1))
        engine.prepare(make_ready(to_train(base, tokenizer, params, engine), params))
        assert engine.n_workers == n_threads
        records = [record for _, record in train(engine, read_examples(rendered(base)), params, ArmParams(**arm))]
        engine.close()
    finally:
        torch.set_num_threads(before)
    return merged(engine.model, engine.weights()), records


def largest_difference(left, right):
    return max((left[name] - right[name]).abs().max().item() for name in left)


def test_only_candidate_epochs_are_kept_and_each_loads_anywhere(project):
    folder = project()
    main("curated")
    assert sorted(path.name for path in (folder / "models/sft/curated").iterdir()) == ["epoch_01", "epoch_03"]
    last = folder / "models/sft/curated/epoch_03"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(last), AutoTokenizer.from_pretrained(last)
    eot = tokenizer.convert_tokens_to_ids("<|eot|>")
    assert model.generation_config.eos_token_id == [eot, 2]
    assert model.get_input_embeddings().num_embeddings == eot + 1
    assert tokenizer.chat_template


def test_loss_falls_and_every_step_is_written(project):
    folder = project(arm={"epochs": 12, "candidate_epochs": [12]})
    main("curated")
    table = pl.read_csv(folder / "data/sft/curated/loss.csv")
    assert table.columns == ["step", "epoch", "loss", "lr", "n_supervised_tokens"]
    assert table["step"].to_list() == list(range(1, 25))
    assert table["loss"][-1] < 0.5 * table["loss"][0]
    assert table["lr"][0] == SFT["lr"]
    assert table["lr"][-1] == pytest.approx(SFT["lr_end"])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(project):
    folder = project()
    bytes_of = []
    for seed in (0, 0, 1):
        project(seed=seed)
        main("curated")
        path = folder / "models/sft/curated/epoch_03"
        bytes_of.append((path / "model.safetensors").read_bytes())
        for file in (folder / "models/sft/curated").glob("*/*"):
            file.unlink()
        for epoch in (folder / "models/sft/curated").iterdir():
            epoch.rmdir()
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


WAYS = {  # of carrying out the same step of four examples of about 20 tokens
    "one by one": {"micro_batch_tokens": 25},
    "checkpointed": {"gradient_checkpointing": True},
    "two threads": {"n_threads": 2},
    "two threads, one by one": {"n_threads": 2, "micro_batch_tokens": 25},
    "five threads, one without an example": {"n_threads": 5},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("optimizer", "method"), [("sgd", "full"), ("adamw", "full"), ("sgd", "lora")])
def test_a_step_is_the_same_however_it_is_carried_out(base, optimizer, method, way):
    """With residual dropout: what is dropped follows from step and example. SGD shows what AdamW hides, a factor."""
    lr = 1e-2 if optimizer == "adamw" else 0.5
    recipe = {"optimizer": optimizer, "method": method, "lr": lr, "residual_dropout": 0.3}
    whole, records = weights_after(base, **recipe)
    parts, records_of_parts = weights_after(base, **recipe, **WAYS[way])
    assert largest_difference(whole, parts) < (1e-3 if optimizer == "adamw" else 1e-5)
    assert [r.loss for r in records] == pytest.approx([r.loss for r in records_of_parts], rel=1e-4)
    assert [r.grad_norm for r in records] == pytest.approx([r.grad_norm for r in records_of_parts], rel=1e-3)


def test_the_loss_of_a_step_is_the_mean_over_its_supervised_tokens(base):
    _, records = weights_after(base, residual_dropout=0.0)
    model, tokenizer = load_model(base), load_tokenizer(base).with_eot("<|eot|>")
    add_eot(model, tokenizer)
    first = next(schedule(7, epochs=3, global_batch_size=4, lr=1, lr_end=1, seed=0)).examples
    table, costs = rendered(base), []
    for i in first:
        ids, mask = table["input_ids"][i].to_list(), table["loss_mask"][i].to_list()
        with torch.inference_mode():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        costs += [-logp[t - 1, ids[t]].item() for t in range(1, len(ids)) if mask[t]]
    assert records[0].n_supervised_tokens == len(costs)
    assert records[0].loss == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_eot_starts_as_the_mean_of_the_other_embeddings(base):
    model, tokenizer = load_model(base), load_tokenizer(base).with_eot("<|eot|>")
    before = model.get_input_embeddings().weight.detach().clone()
    add_eot(model, tokenizer)
    after = model.get_input_embeddings().weight.detach()
    assert torch.equal(after[: len(before)], before)
    assert torch.allclose(after[tokenizer.eot_id], before.mean(0), atol=1e-7)


def test_weight_decay_is_on_matrices_but_not_on_embeddings_and_norms(base):
    model = load_model(base)
    decayed, others = parameter_groups(model, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)].split(".")[-2] for p in decayed["params"]} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert others["weight_decay"] == 0
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_all_weights_are_trained(base):
    before = load_model(base).state_dict()
    after, _ = weights_after(base)
    unchanged = [name for name in before if torch.equal(before[name], after[name][: len(before[name])])]
    assert unchanged == []


@pytest.mark.parametrize("candidates", [[0], [4], [2, 1], [1, 1]])
def test_candidates_that_are_no_epochs_are_refused(project, candidates):
    project(arm={"epochs": 3, "candidate_epochs": candidates})
    with pytest.raises(ParamsError, match=r"arms\.curated\.sft.*candidate_epochs"):
        main("curated")


def test_a_micro_batch_too_small_for_an_example_is_refused(project):
    project(micro_batch_tokens=3)
    with pytest.raises(ParamsError, match=r"micro_batch_tokens: must hold the longest example of .* tokens, got 3"):
        main("curated")


def test_an_unknown_arm_is_refused_with_those_there_are(project):
    project()
    with pytest.raises(ParamsError, match="arms has only curated"):
        main("nonesuch")


def test_an_arm_with_a_key_that_no_stage_reads_is_refused(project):
    arms = {"curated": {"sample": {}, "sft": ARM, "stf": {"epochs": 2}}}
    write_params(project(), render=CHAT, sft=SFT, arms=arms)
    with pytest.raises(ParamsError, match=r"^params\.yaml: arms\.curated\.stf: unknown key, got \{'epochs': 2\}; rem"):
        main("curated")


def test_an_example_beyond_the_bases_positions_is_refused(project, base, tmp_path):
    folder = project()
    long = render(
        examples([("Hi", "x" * 300)]),
        load_tokenizer(base).with_eot("<|eot|>"),
        RenderParams(**{**CHAT, "max_tokens": 200}),
        arm="a",
    ).rendered
    write_table(folder / "data/render/curated.parquet", long, RENDERED)
    with pytest.raises(InputError, match=r"200 tokens, the base has 128 positions; lower render\.max_tokens"):
        main("curated")


def test_params_hold_no_unknown_key(tmp_path, project):
    folder = project()
    values = json.loads((folder / "params.yaml").read_text())
    values["sft"]["warmup"] = 10
    (folder / "params.yaml").write_text(json.dumps(values))
    with pytest.raises(ParamsError, match=r"params\.yaml: sft\.warmup: unknown key, got 10"):
        main("curated")


def test_a_run_that_diverges_stops(project):
    folder = project(lr=1e6, lr_end=1e6, max_grad_norm=None)
    with pytest.raises(
        InputError, match=r"sft: the (loss|gradient) of step \d .*; lower sft\.lr, .* among authored:00\d, "
    ):
        main("curated")
    assert not (folder / "data/sft/curated/loss.csv").exists()


def test_an_infinite_rate_is_refused(project):
    folder = project()
    text = (folder / "params.yaml").read_text().replace('"lr": 0.01', '"lr": .inf')
    (folder / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"sft\.lr: must be a finite number, got inf"):
        main("curated")


def test_epochs_of_an_earlier_run_are_gone(project):
    folder = project()
    main("curated")
    project(arm={"epochs": 2, "candidate_epochs": [2]})
    main("curated")
    assert [path.name for path in (folder / "models/sft/curated").iterdir()] == ["epoch_02"]


def test_an_eot_that_the_base_has_keeps_its_embedding(base):
    model = load_model(base)
    tokenizer = load_tokenizer(base).with_eot("!")
    before = model.get_input_embeddings().weight.detach().clone()
    add_eot(model, tokenizer)
    assert torch.equal(model.get_input_embeddings().weight.detach(), before)


def test_each_step_is_that_of_transformers_trainer(base, tmp_path):
    """One example a batch, so that the Trainer's mean is the mean over supervised tokens; the same order, fp32."""
    recipe = {"global_batch_size": 1, "residual_dropout": 0.0, "lr": 1e-3, "lr_end": 1e-4}
    arm = {"epochs": 2, "candidate_epochs": [2]}
    ours, records = weights_after(base, arm, **recipe)
    model, tokenizer = load_model(base), load_tokenizer(base).with_eot("<|eot|>")
    add_eot(model, tokenizer)
    params, table = Params(**{**SFT, **recipe}), rendered(base)
    steps = list(schedule(7, epochs=2, global_batch_size=1, lr=1e-3, lr_end=1e-4, seed=0))
    rows = [
        {
            "input_ids": table["input_ids"][i].to_list(),
            "labels": [t if m else -100 for t, m in zip(table["input_ids"][i], table["loss_mask"][i], strict=True)],
        }
        for step in steps
        for i in step.examples
    ]
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.1), lr=1e-3, betas=(0.9, 0.95))
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: steps[min(n, len(steps) - 1)].lr / 1e-3)
    trainer = Trainer(
        model,
        TrainingArguments(
            tmp_path, per_device_train_batch_size=1, max_steps=len(rows), max_grad_norm=params.max_grad_norm,
            logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
            train_sampling_strategy="sequential",
        ),
        train_dataset=rows,
        data_collator=lambda batch: {name: torch.tensor([row[name] for row in batch]) for name in batch[0]},
        optimizers=(optimizer, rates),
    )  # fmt: skip
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [r.loss for r in records] == pytest.approx([entry["loss"] for entry in logged], abs=1e-4)
    assert [r.grad_norm for r in records] == pytest.approx([entry["grad_norm"] for entry in logged], rel=1e-3)
    assert largest_difference(ours, model.state_dict()) < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lora_leaves_a_plain_model_whose_maps_and_eot_have_changed(project, base, precision):
    folder = project(method="lora", precision=precision, arm={"epochs": 3, "candidate_epochs": [3]})
    main("curated")
    out = folder / "models/sft/curated/epoch_03"
    assert not list(out.glob("adapter*"))
    before, model = load_model(base, dtype="float32" if precision == "fp32" else "bfloat16"), load_model(out)
    start, tokenizer = before.get_input_embeddings().weight, load_tokenizer(out)
    eot = tokenizer.eot_id
    after = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert after.keys() == before.state_dict().keys() == model.state_dict().keys()
    changed = {
        name for name, weight in before.state_dict().items() if not torch.equal(weight, after[name][: len(weight)])
    }
    assert {name.split(".")[-2] for name in changed} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    row = after["model.embed_tokens.weight"][eot]
    assert len(after["model.embed_tokens.weight"]) == eot + 1
    assert (row - start.float().mean(0)).abs().max() > 0.01


def test_the_state_of_lora_holds_what_it_trains(project, monkeypatch):
    folder = project(method="lora")
    monkeypatch.setenv("LIMA_STATE_EVERY_S", "0")
    monkeypatch.setattr(TrainingState, "end", lambda _state: None)
    main("curated")
    (path,) = folder.glob(".cache/sft/curated/*/state-*/state.pt")
    state = torch.load(path, weights_only=True)
    assert {name.split(".")[-2] for name in state["weights"]} == {"default", "learned_row"}
    assert len(state["optimizer"]["state"]) == len(state["weights"]) == 2 * 2 * 7 + 1


def outs(folder):
    files = [*(folder / "models/sft/curated").glob("*/*"), folder / "data/sft/curated/loss.csv"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def killed_after(folder, step):
    """Start the stage as a user does, and kill -9 it when the state after a step is there; what it started ends too."""
    command = [sys.executable, "-m", "stages.sft", "curated"]
    environment = {**os.environ, "LIMA_STATE_EVERY_S": "0", "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(
        int(path.name.removeprefix("state-")) >= step for path in folder.glob(".cache/sft/curated/*/state-*")
    ):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9, "it was to be killed under way"


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_bytes_of_one_that_was_not(project):
    folder = project(arm={"epochs": 100, "candidate_epochs": [2, 60, 100]})
    main("curated")
    whole = outs(folder)
    shutil.rmtree(folder / "models/sft")
    for step in (3, 120):  # before and after a candidate epoch
        killed_after(folder, step)
        assert not (folder / "models/sft").exists()
    (kept,) = (folder / ".cache/sft/curated").iterdir()
    assert {"epoch_02", "epoch_60"} >= {path.name for path in kept.glob("epoch_*")} >= {"epoch_02"}
    n_threads = torch.get_num_threads()
    main("curated")
    assert torch.get_num_threads() == n_threads
    assert outs(folder) == whole
    assert not list((folder / ".cache/sft/curated").iterdir())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_that_was_stopped_goes_on_where_it_stood(project, monkeypatch, capsys, method):
    folder = project(arm={"epochs": 4, "candidate_epochs": [1, 4]}, method=method)
    main("curated")
    whole = outs(folder)
    monkeypatch.setenv("LIMA_STATE_EVERY_S", "0")
    writing = TrainingState.keep

    def interrupted(state, step, engine, records):
        writing(state, step, engine, records)
        if step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main("curated")
    main("curated")
    assert "goes on after step 5" in capsys.readouterr().err
    assert outs(folder) == whole


def test_a_step_that_ruins_the_weights_is_refused_and_the_state_before_it_kept(project):
    folder = project(lr=1e6, lr_end=1e6, max_grad_norm=None)
    with pytest.raises(InputError):
        main("curated")
    (state,) = folder.glob(".cache/sft/curated/*/state-*")
    weights = torch.load(state / "state.pt", weights_only=True)["weights"]
    assert all(torch.isfinite(weight).all() for weight in weights.values())


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "method"), [("sgd", "full"), ("adamw", "full"), ("sgd", "lora")])
def test_two_processes_make_the_steps_of_one(project, monkeypatch, optimizer, method):
    """Seven examples in steps of four: the last step of an epoch has three, which do not part evenly.

    Once without clipping, which with a norm above its limit hides a factor as AdamW does.
    """
    recipe = {"optimizer": optimizer, "method": method, "lr": 1e-2, "micro_batch_tokens": 25}
    if optimizer == "sgd":
        recipe |= {"lr": 0.2, "max_grad_norm": None if method == "full" else 1.0}
    folder = project(arm={"epochs": 2, "candidate_epochs": [2]}, **recipe)
    main("curated")
    one = outs(folder)
    whole = load_model(folder / "models/sft/curated/epoch_02").state_dict()
    monkeypatch.setenv("LIMA_PROCESSES", "2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for strategy in ("ddp", "zero2", "zero3", "fsdp2"):
        monkeypatch.setenv("LIMA_STRATEGY", strategy)
        main("curated")
        parts = load_model(folder / "models/sft/curated/epoch_02").state_dict()
        assert largest_difference(whole, parts) < (1e-3 if optimizer == "adamw" else 1e-6), strategy
        losses, of_one = (pl.read_csv(data[LOSS])["loss"].to_list() for data in (outs(folder), one))
        assert losses == pytest.approx(of_one, rel=1e-4), strategy


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "method"), [("zero2", "full"), ("zero3", "lora"), ("fsdp2", "full")])
def test_two_processes_in_bf16_learn_as_one(project, monkeypatch, strategy, method):
    """Where weights are bf16 and their fp32 copies the optimizer's, or fp32 shards; both against autocast."""
    recipe = {"precision": "bf16", "method": method, "micro_batch_tokens": 25}
    folder = project(arm={"epochs": 4, "candidate_epochs": [4]}, **recipe)
    main("curated")
    one = pl.read_csv(folder / LOSS)["loss"].to_list()
    monkeypatch.setenv("LIMA_PROCESSES", "2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LIMA_STRATEGY", strategy)
    main("curated")
    losses = pl.read_csv(folder / LOSS)["loss"].to_list()
    assert losses == pytest.approx(one, rel=0.02)
    assert losses[-1] < losses[0] - 0.2
    config = json.loads((folder / "models/sft/curated/epoch_04/config.json").read_text())
    assert config["dtype"] == "bfloat16"


@pytest.mark.slow
def test_a_launcher_of_another_kind_may_start_the_processes(project):
    """torchrun sets ranks of its own; and one process that shards needs a group too."""
    folder = project(arm={"epochs": 2, "candidate_epochs": [2]}, micro_batch_tokens=25)
    main("curated")
    whole = load_model(folder / "models/sft/curated/epoch_02").state_dict()
    stage = ["stages.sft", "curated"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", *stage]
    alone = [sys.executable, "-m", *stage]
    for command, strategy in ((torchrun, "ddp"), (alone, "zero3"), (alone, "fsdp2")):
        shutil.rmtree(folder / "models/sft")
        env = {**os.environ, "PYTHONPATH": str(ROOT), "LIMA_STRATEGY": strategy}
        subprocess.run(command, cwd=folder, env=env, check=True)
        parts = load_model(folder / "models/sft/curated/epoch_02").state_dict()
        assert largest_difference(whole, parts) < 1e-3, strategy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "method"),
    [("ddp", "full"), ("zero3", "full"), ("fsdp2", "lora")],
)
def test_processes_that_were_killed_go_on_as_if_they_had_not_been(project, monkeypatch, capfd, strategy, method):
    folder = project(arm={"epochs": 12, "candidate_epochs": [1, 12]}, method=method, micro_batch_tokens=25)
    for name, value in {"PROCESSES": "2", "STRATEGY": strategy}.items():
        monkeypatch.setenv(f"LIMA_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    main("curated")
    whole = load_model(folder / "models/sft/curated/epoch_12").state_dict()
    shutil.rmtree(folder / "models/sft")
    killed_after(folder, 5)
    assert not (folder / "models/sft").exists()
    main("curated")
    assert re.search(r"goes on after step ([5-9]|1\d|2[0-3])\n", capfd.readouterr().err)
    again = load_model(folder / "models/sft/curated/epoch_12").state_dict()
    assert largest_difference(whole, again) <= 1e-6


FEW_LOGITS = """
from stages.core.packed_loss import n_chunks
n_chunks.__kwdefaults__["logits_bytes"] = 4 * 260 * 3
from stages.sft import main
main("curated")
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero3", "fsdp2"])
def test_sharded_weights_serve_several_packs_chunks_of_logits_and_checkpointing(project, strategy):
    """On each of two processes two packs a step, whose logits come three tokens at a time."""
    recipe = {"optimizer": "sgd", "lr": 0.2, "max_grad_norm": None, "micro_batch_tokens": 25}
    folder = project(arm={"epochs": 2, "candidate_epochs": [2]}, **recipe)
    main("curated")
    whole = load_model(folder / "models/sft/curated/epoch_02").state_dict()
    shutil.rmtree(folder / "models/sft")
    project(arm={"epochs": 2, "candidate_epochs": [2]}, gradient_checkpointing=True, **recipe)
    (folder / "few_logits.py").write_text(FEW_LOGITS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "few_logits.py"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LIMA_STRATEGY": strategy}
    subprocess.run(command, cwd=folder, env=env, check=True)
    parts = load_model(folder / "models/sft/curated/epoch_02").state_dict()
    assert largest_difference(whole, parts) < 1e-6
