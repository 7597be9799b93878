import shutil
import subprocess
import sys

import pytest

from stages.runtime.shards import Shards, key_of
from tests.workspace import ROOT


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


def test_the_version_of_code_is_that_of_a_module_and_all_behind_it(tmp_path):
    """In a copy of the package, by a process for each look: what is loaded already is not the point."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))

    def version(module, first=""):
        code = f"{first}\nfrom stages.runtime.shards import code_version; print(code_version({module!r}))"
        return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True).stdout

    archives = "stages.sources.stack_exchange"
    before, other = version(archives), version("stages.sources.wikihow")
    assert version(archives, "import stages.runtime.archives, stages.sources.wikihow") == before != other
    with (tmp_path / "stages/runtime/archives.py").open("a") as file:  # imported late, by some who read archives
        file.write("\n# changed\n")
    assert version(archives) != before
    assert version("stages.sources.wikihow") == other
