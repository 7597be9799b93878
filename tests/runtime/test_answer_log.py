import shutil

import pytest

from stages.common.errors import InputError
from stages.core.sampling import Decoding
from stages.runtime.answer_log import AnswerLog, KeptAnswer, answer_key, model_digest
from tests.tiny import DECODING, make_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


def path_of(folder, *, stop_ids=frozenset({1}), **changes):
    return AnswerLog.of(folder, Decoding(**{**DECODING, **changes}), stop_ids).path


def test_what_was_kept_is_found_again_by_another_reader(tmp_path):
    log = AnswerLog(tmp_path / "a.log")
    with log.writing():
        log.keep("x", KeptAnswer([1, 2], 9))
        log.keep("y", KeptAnswer([], None))
        assert AnswerLog(tmp_path / "a.log").kept == {"x": KeptAnswer([1, 2], 9), "y": KeptAnswer([], None)}


def test_two_writers_share_a_file(tmp_path):
    first, second = AnswerLog(tmp_path / "a.log"), AnswerLog(tmp_path / "a.log")
    with first.writing(), second.writing():
        for i in range(50):
            first.keep(f"x{i}", KeptAnswer([i] * 900, None))
            second.keep(f"y{i}", KeptAnswer([i] * 900, None))
    assert len(AnswerLog(tmp_path / "a.log").kept) == 100


@pytest.mark.parametrize("n_lost", [1, 20])
def test_a_line_that_was_cut_off_counts_as_absent_and_spoils_no_other(tmp_path, n_lost):
    path = tmp_path / "a.log"
    log = AnswerLog(path)
    with log.writing():
        log.keep("x", KeptAnswer([1], 9))
        log.keep("y", KeptAnswer([2], 9))
    path.write_bytes(path.read_bytes()[: -n_lost - 1])
    again = AnswerLog(path)
    assert again.kept == {"x": KeptAnswer([1], 9)}
    with again.writing():
        again.keep("z", KeptAnswer([3], 9))
    assert set(AnswerLog(path).kept) == {"x", "z"}


def test_an_altered_line_counts_as_absent(tmp_path):
    path = tmp_path / "a.log"
    log = AnswerLog(path)
    with log.writing():
        log.keep("x", KeptAnswer([11], 9))
    path.write_bytes(path.read_bytes().replace(b"[11]", b"[12]"))
    assert AnswerLog(path).kept == {}


def test_a_file_belongs_to_model_decoding_and_stop_tokens(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    paths = [
        path_of(folder),
        path_of(other),
        path_of(folder, stop_ids=frozenset({1, 2})),
        path_of(folder, seed=1),
        path_of(folder, top_p=0.8),
        path_of(folder, max_new_tokens=9),
        path_of(folder, precision="bf16"),
    ]
    assert len(set(paths)) == len(paths)
    assert path_of(folder, batch_size=1, n_samples=5) == path_of(folder)
    assert path_of(shutil.copytree(folder, tmp_path / "same")) == path_of(folder)


def test_an_answer_is_named_by_prompt_sample_and_tokens():
    keys = [answer_key("p", 0, [1]), answer_key("q", 0, [1]), answer_key("p", 1, [1]), answer_key("p", 0, [1, 1])]
    assert len(set(keys)) == len(keys)


def test_a_folder_that_is_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "answers").write_text("")
    with pytest.raises(InputError, match="answers cannot be kept"), AnswerLog(tmp_path / "answers/a.log").writing():
        pass


@pytest.mark.parametrize(("name", "told"), [("config.json", "cannot be read"), ("model.safetensors", "no weights")])
def test_a_model_folder_that_lacks_something_is_one_sentence(folder, tmp_path, name, told):
    part = shutil.copytree(folder, tmp_path / "part")
    (part / name).unlink()
    with pytest.raises(InputError, match=told):
        model_digest(part)
