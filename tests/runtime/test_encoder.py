from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from stages.common.errors import InputError, ParamsError
from stages.core.vectors import ONE, SCALE, tfidf
from stages.runtime.encoder import Vectors, load_encoder
from tests.workspace import ROOT

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "oak", "elm", "ash", "burns", "bends"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder of 2 layers, in the transformers layout."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def params(model: object, *, max_tokens: int = 16, revision: str | None = None) -> Vectors:
    return Vectors(model=str(model), revision=revision, max_tokens=max_tokens)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("stages.runtime.encoder.CACHE", tmp_path)
    return tmp_path / "vectors"


TEXTS = pl.Series(["oak burns", "elm bends bends bends", "ash", "oak burns", ""])


def test_a_vector_is_the_mean_of_the_last_states_of_the_text_alone(folder: Path) -> None:
    found = load_encoder(params(folder))(TEXTS)
    model = BertModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        mean = model(input_ids=torch.tensor([[1, 5, 8, 8, 8, 2]])).last_hidden_state[0].mean(0).numpy()
    assert found.shape == (5, 24)
    assert found[1] @ (mean / np.linalg.norm(mean)) / SCALE == pytest.approx(1, abs=1e-4)
    assert np.array_equal(found[0], found[3])
    assert np.array_equal(found, np.rint(found))
    assert found[0] @ found[0] / ONE == pytest.approx(1, abs=1e-2)


def test_padding_and_order_change_nothing(folder: Path, cache: Path) -> None:
    together = load_encoder(params(folder))(TEXTS)
    alone = [load_encoder(params(folder))(TEXTS.slice(i, 1))[0] for i in range(5)]
    assert np.abs(together - np.array(alone)).max() <= 1
    assert len(list(cache.glob("*.npy"))) == 5  # texts 0 and 3 are one


def test_a_text_is_encoded_once_in_a_process(folder: Path, cache: Path) -> None:
    encode = load_encoder(params(folder))
    whole = encode(TEXTS)
    assert np.array_equal(encode(TEXTS[[3, 1]]), whole[[3, 1]])
    assert len(list(cache.glob("*.npy"))) == 1
    assert encode(TEXTS.clear()).shape[0] == 0


def test_a_longer_text_is_cut(folder: Path) -> None:
    found = load_encoder(params(folder, max_tokens=8))(pl.Series(["oak " * 30, "oak " * 6]))
    assert np.array_equal(found[0], found[1])


def test_vectors_are_kept_and_a_damaged_file_is_made_anew(folder: Path, cache: Path) -> None:
    first = load_encoder(params(folder))(TEXTS)
    [kept] = cache.glob("*.npy")
    np.save(kept, np.zeros((4, 24), np.float32))
    assert not load_encoder(params(folder))(TEXTS).any()
    for damage in (b"", b"\x93NUMPY"):
        kept.write_bytes(damage)
        assert np.array_equal(load_encoder(params(folder))(TEXTS), first)
    np.save(kept, np.zeros((3, 24), np.float32))
    assert np.array_equal(load_encoder(params(folder))(TEXTS), first)
    assert np.array_equal(load_encoder(params(folder, max_tokens=9))(TEXTS), first)  # all texts are shorter
    assert len(list(cache.glob("*.npy"))) == 2


def test_tfidf_is_the_default_and_loads_no_torch() -> None:
    assert load_encoder(params("tfidf")) is tfidf
    code = (
        "import sys, polars; from stages.runtime.encoder import Vectors, load_encoder; "
        "load_encoder(Vectors(model='tfidf', revision=None, max_tokens=8))(polars.Series(['a'])); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_hub_id_needs_a_commit(revision: str | None) -> None:
    with pytest.raises(ParamsError, match=r"sample.vectors.revision: must be a commit of a/b .*got"):
        load_encoder(params("a/b", revision=revision))


def test_a_folder_without_weights_or_with_another_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        load_encoder(params(tmp_path / "gone"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model/pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"no model.safetensors in it, only pytorch_model.bin"):
        load_encoder(params(tmp_path / "model"))
    (tmp_path / "model/model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"model: cannot be loaded to encode texts, .*; replace it"):
        load_encoder(params(tmp_path / "model"))(TEXTS)
