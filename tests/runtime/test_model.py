import pytest

from stages.common.errors import InputError
from stages.runtime.model import check_model_folder, load_model
from tests.tiny import make_base


@pytest.fixture
def base(tmp_path):
    return make_base(tmp_path / "base")


def test_a_whole_folder_loads_in_eval_mode(base):
    assert not load_model(base).training


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no such model folder"):
        check_model_folder(tmp_path / "nothing")


def test_a_folder_without_safetensors_is_refused_with_what_is_there(base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no model\.safetensors in it, only pytorch_model\.bin"):
        check_model_folder(base)


def test_truncated_weights_are_found_before_loading(base):
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        load_model(base)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x10\0\0\0\0\0\0\0{"])
def test_weights_that_are_no_safetensors_are_one_sentence(base, content):
    (base / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a safetensors file"):
        check_model_folder(base)


def test_an_unknown_architecture_is_one_sentence(base):
    (base / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(InputError, match="transformers cannot load it"):
        load_model(base)
