"""The newest state, and only one that has its candidate epochs."""

import pytest

from stages.common.errors import ParamsError
from stages.runtime.training_state import EVERY_S, TrainingState, key_of, read_records


class Writer:
    is_main = True

    def __init__(self, text):
        self.text = text

    def save(self, folder):
        (folder / "weights").write_text(self.text)

    def wait(self):
        pass


class Killed(Writer):
    def save(self, folder):
        super().save(folder)
        raise KeyboardInterrupt


def keep(state, step):
    state.keep(step, Writer(str(step)), [[1, 0.1 + 0.2]] * step)


def test_only_the_newest_is_kept_and_a_half_written_one_is_none(tmp_path):
    state = TrainingState(tmp_path / "arm/key")
    state.begin()
    assert state.newest([]) is None
    for step in (9, 10):
        keep(state, step)
    with pytest.raises(KeyboardInterrupt):
        state.keep(11, Killed("half"), [])
    newest = state.newest([])
    assert (newest / "weights").read_text() == "10"
    assert read_records(newest) == [[1, 0.1 + 0.2]] * 10
    assert len(list(state.folder.glob("state-*"))) == 1


def test_a_state_without_a_candidate_that_was_finished_before_it_is_not_used(tmp_path):
    state = TrainingState(tmp_path / "arm/key")
    state.begin()
    keep(state, 10)
    assert state.newest([(1, 10)]) is None
    assert state.newest([(1, 11)]) is not None
    state.epoch(1).mkdir()
    assert state.newest([(1, 10)]) is not None


def test_other_inputs_start_anew_and_remove_what_was_left(tmp_path):
    old = TrainingState(tmp_path / "arm/old")
    old.begin()
    keep(old, 3)
    TrainingState(tmp_path / "arm/new").begin()
    assert [path.name for path in (tmp_path / "arm").iterdir()] == ["new"]


def test_the_key_follows_contents_and_values(tmp_path):
    path = tmp_path / "a"
    path.write_text("1")
    first = key_of([path], {"lr": 1})
    assert key_of([path], {"lr": 1}) == first
    assert key_of([path], {"lr": 2}) != first
    path.write_text("2")
    assert key_of([path], {"lr": 1}) != first


def test_a_state_is_due_by_the_clock(tmp_path, monkeypatch):
    assert not TrainingState(tmp_path).due()
    monkeypatch.setenv(EVERY_S, "0")
    assert TrainingState(tmp_path).due()
    monkeypatch.setenv(EVERY_S, "often")
    with pytest.raises(ParamsError, match="LIMA_STATE_EVERY_S: must be a number of seconds, got 'often'"):
        TrainingState(tmp_path)
