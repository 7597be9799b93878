import pytest

from stages.runtime.shards import Shards, code_version, key_of


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.runtime.shards.CACHE", tmp_path)
    kept = Shards("extract", "s")
    with kept.make("k") as (folder, note):
        (folder / "a").write_text("rows")
        note["n"] = 3
    return kept


def test_a_shard_is_found_with_its_note_and_files(shards):
    assert shards.find("k") == {"n": 3}
    assert [path.read_text() for path in shards.files("k")] == ["rows"]
    assert shards.find("other") is None


def test_a_shard_that_fails_leaves_nothing(shards):
    def fail():
        with shards.make("l") as (folder, _):
            (folder / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in shards.folder.iterdir()] == ["k"]


@pytest.mark.parametrize("name", ["a", "manifest.json"])
@pytest.mark.parametrize("text", [None, "rowz", "{}", "[]"])
def test_a_shard_that_was_altered_is_told_and_removed(shards, capsys, name, text):
    path = shards.folder / "k" / name
    path.unlink() if text is None else path.write_text(text)
    assert shards.find("k") is None
    assert "a kept shard is damaged" in capsys.readouterr().err
    assert not (shards.folder / "k").exists()


def test_others_are_removed_and_what_killed_runs_left_too(shards):
    (shards.folder / ".half").mkdir()
    (shards.folder / "old").mkdir()
    shards.keep_only(["k"])
    assert [path.name for path in shards.folder.iterdir()] == ["k"]


def test_a_folder_to_work_in_is_empty_and_gone_afterwards(shards):
    (shards.folder / ".work").mkdir()
    (shards.folder / ".work/left").write_text("by a killed run")
    with shards.work() as folder:
        assert list(folder.iterdir()) == []
        shards.keep_only([])
        assert folder.is_dir()
    assert list(shards.folder.iterdir()) == []


def test_a_key_follows_from_values_whatever_their_order():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})
    assert code_version() == code_version()
