"""The trial before the first step, through the stage and by itself."""

import json
import shutil
from collections import namedtuple

import polars as pl
import pytest
import torch

from stages.common.errors import InputError
from stages.common.files import write_table
from stages.core.topology import Rank
from stages.core.training_cost import Disk
from stages.render import Params as RenderParams
from stages.render import run as render
from stages.runtime import machine
from stages.runtime.model import load_model, save_model
from stages.runtime.preflight import rehearse, told_of_no_room
from stages.runtime.tokenizer import load_tokenizer
from stages.runtime.training_state import TrainingState
from stages.schema import RENDERED
from stages.sft import (
    ArmParams,
    Params,
    add_eot,
    check_disk,
    engine_of,
    main,
    make_ready,
    read_examples,
    steps_of,
    train,
    work_of,
)
from tests.tiny import CHAT, SFT, examples, make_base, write_params

PAIRS = [(f"Say {word}", word) for word in ("one", "two", "three", "four", "five", "six", "seven")]
ARM = {"epochs": 3, "candidate_epochs": [1, 3]}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rendered(base):
    return render(examples(PAIRS), load_tokenizer(base).with_eot("<|eot|>"), RenderParams(**CHAT), arm="a").rendered


@pytest.fixture
def project(base, rendered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(base)
    write_table(tmp_path / "data/render/curated.parquet", rendered, RENDERED)
    write_params(tmp_path, render=CHAT, sft=SFT, arms={"curated": {"sample": {}, "sft": ARM}})
    return tmp_path


def ready_engine(base):
    model, tokenizer = load_model(base), load_tokenizer(base).with_eot("<|eot|>")
    add_eot(model, tokenizer)
    engine = engine_of("single", Params(**SFT), Rank(0, 1, 0, 1))
    engine.prepare(make_ready(model, Params(**SFT)))
    return engine


def test_a_run_with_a_trial_has_the_weights_of_one_without(project, base, rendered, capsys):
    main("curated")
    engine = ready_engine(base)
    records = [record for _, record in train(engine, read_examples(rendered), Params(**SFT), ArmParams(**ARM))]
    engine.close()
    tried = load_model(project / "models/sft/curated/epoch_03").state_dict()
    assert [name for name, weight in engine.model.state_dict().items() if not torch.equal(weight, tried[name])] == []
    losses = pl.read_csv(project / "data/sft/curated/loss.csv")["loss"].to_list()
    assert losses == [round(record.loss, 6) for record in records]


def test_the_trial_is_told_once_and_leaves_nothing(project, capsys, monkeypatch):
    writing = TrainingState.keep
    seen = []

    def interrupted(state, step, engine, records):
        writing(state, step, engine, records)
        if step == 2:
            seen.extend(path.name for path in state.folder.glob("*state*"))
            seen.extend(path.name for path in state.folder.glob("*preflight*"))
            raise KeyboardInterrupt

    monkeypatch.setenv("LIMA_STATE_EVERY_S", "0")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main("curated")
    first = capsys.readouterr().err
    assert seen == ["state-00000002"]
    assert [line[:22].strip() for line in first.splitlines()] == [
        "sft curated: preflight", "memory a process", "disk a candidate", "time of the run",
    ]  # fmt: skip
    main("curated")
    assert "preflight" not in capsys.readouterr().err
    assert json.loads((project / "metrics/sft/curated/run.json").read_text())["n_starts"] == 2


def test_the_trial_takes_no_step_and_no_random_number(base, rendered, tmp_path):
    params, arm = Params(**SFT), ArmParams(**ARM)
    table, engine = read_examples(rendered), ready_engine(base)
    before = {name: weight.clone() for name, weight in engine.model.state_dict().items()}
    torch.manual_seed(7)
    numbers = torch.get_rng_state()

    def save(folder):
        torch.rand(3)
        save_model(engine.model, folder)
        return engine.weights()

    work = work_of(next(steps_of(table, params, arm)), table, params, engine)
    trial = rehearse(engine, work, save, tmp_path / "tried")
    engine.close()
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(weight, before[name]) for name, weight in engine.model.state_dict().items())
    assert not engine.optimizer.state
    assert all(parameter.grad is None for parameter in engine.model.parameters())
    assert not (tmp_path / "tried").exists()
    n_weights = sum(weight.numel() for weight in engine.model.parameters())
    assert engine.moments_to_come() == 2 * 4 * n_weights
    assert trial.candidate_bytes > 4 * n_weights
    assert min(trial.step_s, trial.save_s, trial.load_s) > 0


@pytest.mark.parametrize("fault", ["another value", "another name"])
def test_a_candidate_that_does_not_load_as_it_was_saved_stops_the_run(base, rendered, tmp_path, fault):
    params, arm = Params(**SFT), ArmParams(**ARM)
    table, engine = read_examples(rendered), ready_engine(base)
    name = "model.layers.1.mlp.up_proj.weight"

    def save(folder):
        weights = {key: weight.clone() for key, weight in engine.weights().items()}
        if fault == "another value":
            weights[name][0, 0] += 1
        else:
            weights["odd"] = weights.pop(name)
        save_model(engine.model, folder, weights=weights)
        return engine.weights()

    work = work_of(next(steps_of(table, params, arm)), table, params, engine)
    with pytest.raises(InputError, match=rf"tried: a model that was saved there loads with another {name}; look at"):
        rehearse(engine, work, save, tmp_path / "tried")
    engine.close()
    assert not (tmp_path / "tried").exists()


def test_memory_that_runs_out_is_one_sentence():
    with pytest.raises(InputError, match=r"^sft: too little$"), told_of_no_room(lambda: "too little"):
        torch.empty(2**60)
    with pytest.raises(InputError, match=r"^sft: too little$"), told_of_no_room(lambda: "too little"):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match="shape"), told_of_no_room(lambda: "too little"):
        torch.zeros(2).view(3)


def test_a_model_beyond_the_memory_is_refused_before_it_is_loaded(project, tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    limit.write_text("900000\n")
    with pytest.raises(
        InputError,
        match=r"models/base: 2\.69e-05 B weights and 64 tokens a forward pass need .* and a process has 0\.86 MiB; "
        r"set sft\.gradient_checkpointing to true, lower sft\.micro_batch_tokens \(64; the longest example has 17\), "
        r"set sft\.method to lora, take a machine with more memory, or a smaller base",
    ):
        main("curated")
    limit.write_text("max\n")
    main("curated")


def test_too_little_disk_is_refused_with_the_ways_out(project, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _path: Usage(10**9, 0, 900_000)
    )  # candidates .22 MB, two states .65 MB
    main("curated")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**9, 0, 400_000))
    with pytest.raises(InputError, match=r"0\.22 MB of candidate epochs and 0\.65 MB of training state have no room"):
        main("curated")
    monkeypatch.setenv("LIMA_STATE_EVERY_S", "inf")
    main("curated")


def test_what_an_interrupted_run_has_written_has_its_room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1000, 0, 100))
    state = TrainingState(tmp_path / "state")
    with pytest.raises(InputError, match="no room"):
        check_disk(Disk(200, 100), state)
    (state.folder / "epoch_01").mkdir(parents=True)
    (state.folder / "epoch_01/model.safetensors").write_bytes(bytes(200))
    check_disk(Disk(200, 100), state)


def test_run_json_says_with_what_on_what_and_for_how_long(project, rendered):
    main("curated")
    run = json.loads((project / "metrics/sft/curated/run.json").read_text())
    assert run["topology"] == {
        "strategy": "single",
        "n_hosts": 1,
        "n_processes": 1,
        "n_workers": torch.get_num_threads(),
    }
    assert run["versions"]["torch"] == torch.__version__
    assert run["speed"]["n_tokens"] == 3 * rendered["n_tokens"].sum()
    assert run["speed"]["n_steps"] == 6
    assert run["hardware"]["n_cores"] >= 1
    assert run["n_starts"] == 1
    assert set(run["times"]) == {"load_s", "preflight_s", "train_s", "save_s", "evaluate_s"}
    assert all(run["times"][part] > 0 for part in ("load_s", "preflight_s", "train_s", "save_s"))
