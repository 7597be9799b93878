import pytest

from stages.runtime import shards
from stages.runtime.shards import Shelf, code_version, key_of


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CACHE", tmp_path)
    shelf = Shelf("extract", "s")
    with shelf.make("k") as (folder, note):
        (folder / "a").write_text("rows")
        note["n"] = 3
    return shelf


def test_a_shard_is_found_with_its_note_and_files(shelf):
    assert shelf.find("k") == {"n": 3}
    assert [path.read_text() for path in shelf.files("k")] == ["rows"]
    assert shelf.find("other") is None


def test_a_shard_that_fails_leaves_nothing(shelf):
    def fail():
        with shelf.make("l") as (folder, _):
            (folder / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in shelf.folder.iterdir()] == ["k"]


@pytest.mark.parametrize("name", ["a", "manifest.json"])
@pytest.mark.parametrize("text", [None, "rowz", "{}", "[]"])
def test_a_shard_that_was_altered_is_told_and_removed(shelf, capsys, name, text):
    path = shelf.folder / "k" / name
    path.unlink() if text is None else path.write_text(text)
    assert shelf.find("k") is None
    assert "a kept shard is damaged" in capsys.readouterr().err
    assert not (shelf.folder / "k").exists()


def test_others_are_removed_and_what_killed_runs_left_too(shelf):
    (shelf.folder / ".half").mkdir()
    (shelf.folder / "old").mkdir()
    shelf.keep_only(["k"])
    assert [path.name for path in shelf.folder.iterdir()] == ["k"]


def test_a_folder_to_work_in_is_empty_and_gone_afterwards(shelf):
    (shelf.folder / ".work").mkdir()
    (shelf.folder / ".work/left").write_text("by a killed run")
    with shelf.work() as folder:
        assert list(folder.iterdir()) == []
        shelf.keep_only([])
        assert folder.is_dir()
    assert list(shelf.folder.iterdir()) == []


def test_a_key_follows_from_values_whatever_their_order():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})
    assert code_version() == code_version()
