import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.base import blocks, learning_rate, main, train_tokenizer
from stages.common.errors import InputError, ParamsError
from tests.hub_server import REVISION, hub_with
from tests.tiny import make_base, write_params

PRETRAIN = {
    "seed": 0,
    "vocab_size": 400,
    "hidden_size": 16,
    "n_layers": 1,
    "n_heads": 2,
    "context_tokens": 32,
    "batch_size": 2,
    "n_steps": 3,
    "lr": 1e-3,
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(model="miniature", revision=None, **pretrain):
        base = {"model": model, "revision": revision, "pretrain": {**PRETRAIN, **pretrain}}
        write_params(tmp_path, base=base, miniature={"seed": 0, "n_people": 150})
        return tmp_path

    return write


def test_the_miniature_is_a_complete_model_folder_that_transformers_loads(project):
    folder = project()
    main()
    model = AutoModelForCausalLM.from_pretrained(folder / "models/base")
    tokenizer = AutoTokenizer.from_pretrained(folder / "models/base")
    assert model.config.max_position_embeddings == 64
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings == 400
    assert tokenizer("Hi")["input_ids"][0] == model.config.bos_token_id == tokenizer.bos_token_id
    assert tokenizer.chat_template is None


def test_two_runs_give_the_same_bytes_and_another_seed_does_not(project):
    written = []
    for seed in (0, 0, 1):
        folder = project(seed=seed)
        main()
        written.append({path.name: path.read_bytes() for path in (folder / "models/base").iterdir()})
    assert written[0] == written[1]
    assert written[0]["model.safetensors"] != written[2]["model.safetensors"]


def test_documents_are_packed_end_to_end_with_their_marks():
    tokenizer = train_tokenizer(["ab ab", "cd"], vocab_size=300)
    got = [token for block in blocks(iter(["ab", "cd ab"] * 8), tokenizer, width=5) for token in block]
    one = [*tokenizer.encode("ab").ids, 2, *tokenizer.encode("cd ab").ids, 2]
    assert got == (one * 8)[: len(got)]
    assert len(one * 8) - len(got) < 5


def test_learning_rate_warms_up_stays_and_falls():
    rates = [learning_rate(step, peak=1.0, n_steps=1000) for step in range(1000)]
    assert rates[0] == 0.02
    assert rates[49:600] == [1.0] * 551
    assert rates[800] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("n_heads", [3, 16])
def test_heads_must_divide_the_hidden_size_into_even_parts(project, n_heads):
    project(n_heads=n_heads)
    with pytest.raises(ParamsError, match=f"n_heads: must divide hidden_size 16 into even parts, got {n_heads}"):
        main()


def test_a_folder_is_copied_without_its_code(project, tmp_path):
    source = make_base(tmp_path / "mine")
    (source / "modeling_evil.py").write_text("raise SystemExit")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    folder = project(model=str(source))
    main()
    copied = {path.name for path in (folder / "models/base").iterdir()}
    assert copied == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    left = AutoModelForCausalLM.from_pretrained(source).state_dict()
    right = AutoModelForCausalLM.from_pretrained(folder / "models/base").state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_folder_without_safetensors_leaves_nothing_behind(project, tmp_path):
    source = make_base(tmp_path / "mine")
    (source / "model.safetensors").unlink()
    folder = project(model=str(source))
    with pytest.raises(InputError, match=r"no model\.safetensors in it, no weights"):
        main()
    assert not (folder / "models/base").exists()
    assert not (folder / "models/.base.partial").exists()


def test_a_missing_folder_is_one_sentence(project):
    project(model="./nowhere")
    with pytest.raises(InputError, match="nowhere: no such model folder"):
        main()


@pytest.mark.parametrize("revision", [None, "main", "0" * 39])
def test_a_hub_id_needs_a_commit(project, revision):
    project(model="org/name", revision=revision)
    with pytest.raises(ParamsError, match=r"base\.revision: must be a commit of org/name"):
        main()


def test_a_model_of_the_hub_is_copied_without_what_points_to_its_code(project, tmp_path, monkeypatch):
    source = make_base(tmp_path / "mine")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    (source / "evil.py").write_text("raise SystemExit")
    monkeypatch.setattr("stages.common.files.CACHE", tmp_path / ".cache")
    folder = project(model="org/name", revision=REVISION)
    with hub_with(source) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.server.url)
        main()
        n_asked = len(hub.asked())
        main()
        assert len(hub.asked()) == n_asked
    copied = {path.name: path.read_bytes() for path in (folder / "models/base").iterdir()}
    assert json.loads(copied.pop("config.json")) == config
    assert copied == {name: (source / name).read_bytes() for name in copied}
    assert {"model.safetensors", "tokenizer.json"} <= set(copied)
    assert "evil.py" not in copied


def test_files_of_the_users_folder_are_not_shared_by_links(project, tmp_path):
    source = make_base(tmp_path / "mine")
    folder = project(model=str(source))
    main()
    assert not (folder / "models/base/model.safetensors").samefile(source / "model.safetensors")


def test_weights_in_parts_are_copied_by_their_index(project, tmp_path):
    source = make_base(tmp_path / "mine")
    (source / "model.safetensors").rename(source / "part-1.safetensors")
    index = {"weight_map": {"a": "part-1.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    (source / "consolidated.safetensors").write_bytes(b"of another layout")
    folder = project(model=str(source))
    main()
    copied = {path.name for path in (folder / "models/base").iterdir()}
    assert copied == {path.name for path in source.iterdir()} - {"consolidated.safetensors"}
    (source / "part-1.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"part-1\.safetensors: no such file, model\.safetensors\.index\.json names it"
    ):
        main()


def test_a_folder_that_needs_its_own_code_is_refused(project, tmp_path):
    source = make_base(tmp_path / "mine")
    (source / "config.json").write_text('{"model_type": "odd", "auto_map": {"AutoConfig": "odd.Config"}}')
    project(model=str(source))
    with pytest.raises(InputError, match="model type 'odd' needs code from its own folder, which is never run"):
        main()


def test_an_unknown_key_names_file_key_value_and_what_is_known(project):
    folder = project()
    values = json.loads((folder / "params.yaml").read_text())
    values["base"]["pretrain"]["epochs"] = 3
    (folder / "params.yaml").write_text(json.dumps(values))
    with pytest.raises(ParamsError, match=r"params\.yaml: base\.pretrain\.epochs: unknown key, got 3; .*vocab_size"):
        main()
