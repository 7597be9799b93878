import os
from pathlib import Path

import pytest

from stages import pull
from stages.common.errors import InputError, ParamsError
from stages.core.formats import Miniature
from stages.pull import Params, raw_files, run
from tests.downloading import make_project

PARAMS = """
miniature: {{seed: 0, n_people: {n_people}}}
sources:
  mine: {{format: {format}, origin: {origin}, only: {only}}}
pull: {{max_file_bytes: 100, max_total_bytes: 1000, concurrency: 2, timeout_s: 5.0, max_attempts: 2}}
"""


def limits(max_file_bytes):
    return Params(max_file_bytes=max_file_bytes, max_total_bytes=1, concurrency=1, timeout_s=1.0, max_attempts=1)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(origin, format_="wikihow", n_people=300, only="null"):
        Path("params.yaml").write_text(PARAMS.format(origin=origin, format=format_, n_people=n_people, only=only))

    return write


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if not path.is_dir())


def test_the_miniature_is_written_alike_each_time(project):
    project("miniature", "authored")
    pull.main("mine")
    first = {name: Path("data/pull/mine", name).read_bytes() for name in files("data/pull/mine")}
    pull.main("mine")
    assert list(first) == ["dev.jsonl", "test.jsonl", "train.jsonl"]
    assert first == {name: Path("data/pull/mine", name).read_bytes() for name in files("data/pull/mine")}


def test_another_seed_is_another_dump():
    assert run("wikihow", Miniature(seed=0, n_people=300)) != run("wikihow", Miniature(seed=1, n_people=300))


def test_a_folder_is_copied_with_its_folders_and_only_what_the_format_reads(project):
    project("up")
    for name in ("a.csv", "deep/er/b.csv", "notes.txt", ".c.csv"):
        Path("up", name).parent.mkdir(parents=True, exist_ok=True)
        Path("up", name).write_text(name)
    pull.main("mine")
    assert files("data/pull/mine") == ["a.csv", "deep/er/b.csv"]
    assert Path("data/pull/mine/deep/er/b.csv").read_text() == "deep/er/b.csv"
    assert [path.name for path in Path("data/pull").iterdir()] == ["mine"]


def test_what_was_pulled_before_is_replaced(project):
    project("up")
    Path("up").mkdir()
    Path("up/a.csv").write_text("a")
    pull.main("mine")
    Path("up/a.csv").rename("up/b.csv")
    pull.main("mine")
    assert files("data/pull/mine") == ["b.csv"]


def test_a_copy_shares_nothing_with_its_origin(project):
    project("up")
    Path("up").mkdir()
    Path("elsewhere").write_text("x")
    Path("up/a.csv").symlink_to("../elsewhere")
    pull.main("mine")
    copy = Path("data/pull/mine/a.csv")
    assert copy.read_text() == "x"
    assert not copy.is_symlink()
    assert copy.stat().st_nlink == 1


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("nowhere", r"nowhere: the origin of a source must be a folder, got nothing"),
        ("params.yaml", r"params\.yaml: the origin of a source must be a folder, got a file"),
        ("up", r"up: format wikihow needs \*\.csv, got no such file"),
        ("~nosuchuser/x", r"~nosuchuser/x: cannot be read, Could not determine home directory"),
        ("x" * 300, r"xxx: cannot be read, .*File name too long.*; correct `origin`"),
        ("ftp://archive.org/x", r"sources\.mine\.origin: must be a folder, or an address that begins with https://"),
    ],
)
def test_an_origin_that_gives_nothing_is_one_sentence(project, origin, message):
    project(origin)
    Path("up").mkdir()
    Path("up/notes.txt").write_text("x")
    with pytest.raises((InputError, ParamsError), match=message):
        pull.main("mine")
    assert not Path("data").exists()


def test_a_file_over_the_limit_is_refused_and_one_at_it_is_not(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x" * 100)
    assert [str(name) for name in raw_files(tmp_path, "wikihow", limits(100))] == ["a.csv"]
    with pytest.raises(InputError, match=r"a\.csv: must have at most 99 bytes, got 100; raise `pull\.max_file_bytes`"):
        raw_files(tmp_path, "wikihow", limits(99))


def test_linked_folders_and_odd_files_are_refused_not_passed_over(tmp_path):
    params = limits(99)
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.csv").symlink_to("gone")
    with pytest.raises(InputError, match=r"a\.csv: must be a regular file"):
        raw_files(tmp_path / "up", "wikihow", params)
    (tmp_path / "up" / "a.csv").unlink()
    (tmp_path / "up" / "more").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"more: folders of an origin must not be links, got one"):
        raw_files(tmp_path / "up", "wikihow", params)


def test_a_failed_copy_leaves_what_was_there(project, monkeypatch):
    project("up")
    Path("up").mkdir()
    Path("up/a.csv").write_text("old")
    pull.main("mine")
    Path("up/b.csv").write_text("new")
    Path("up/b.csv").chmod(0)
    if os.access("up/b.csv", os.R_OK):  # the superuser reads everything: fail in another way
        monkeypatch.setattr(pull.shutil, "copyfile", _full_disk)
    with pytest.raises(InputError, match=r"data/pull/mine: cannot be filled"):
        pull.main("mine")
    assert files("data/pull/mine") == ["a.csv"]
    assert [path.name for path in Path("data/pull").iterdir()] == ["mine"]


def _full_disk(_source, _target):
    raise OSError(28, "No space left on device")


def test_a_world_too_small_for_its_dump_names_the_parameter(project):
    project("miniature", "authored", n_people=20)
    with pytest.raises(ParamsError, match=r"params\.yaml: miniature\.n_people"):
        pull.main("mine")


def test_an_unknown_source_is_one_sentence(project):
    project("miniature")
    with pytest.raises(ParamsError, match=r"sources\.other: missing, sources has only mine; add it"):
        pull.main("other")


def test_a_target_that_cannot_be_made_or_replaced_is_one_sentence(project, monkeypatch):
    project("miniature", "authored")
    Path("data").write_text("in the way")
    with pytest.raises(InputError, match=r"^data/pull/mine: cannot be filled, .*; free space or mend rights"):
        pull.main("mine")
    Path("data").unlink()
    Path("data/pull").mkdir(parents=True)
    Path("data/pull/mine").write_text("in the way")
    with pytest.raises(InputError, match=r"^data/pull/mine: cannot be filled, .*; free space or mend rights"):
        pull.main("mine")
    assert [path.name for path in Path("data/pull").iterdir()] == ["mine"]


def test_only_narrows_a_folder(project):
    Path("up/b").mkdir(parents=True)
    for name in ("a.csv", "ab.csv", "b/a.csv", "c.csv"):
        Path("up", name).write_text(name)
    project("up", only='["a*", "b/*", "!*b.csv"]')
    pull.main("mine")
    assert files("data/pull/mine") == ["a.csv", "b/a.csv"]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (
            '["d*"]',
            r"mine\.only: must fit files of up, got \['d\*'\], which fit none; correct .* are a\.csv, b\.csv$",
        ),
        ('["*", "!d*"]', r"got \['!d\*'\], which fit none"),
        ('["a*", "!a*"]', r"got \['a\*', '!a\*'\], which fit none"),
        ("[]", r"sources\.mine\.only: must be .*at least 1"),
        ('[""]', r"sources\.mine\.only\.0: must be .*at least 1"),
    ],
)
def test_a_pattern_that_fits_nothing_is_a_mistake(project, only, message):
    Path("up").mkdir()
    Path("up/a.csv").write_text("a")
    Path("up/b.csv").write_text("b")
    project("up", only=only)
    with pytest.raises(ParamsError, match=message):
        pull.main("mine")


def test_the_miniature_is_taken_whole(project):
    project("miniature", only="[a]")
    with pytest.raises(ParamsError, match=r"sources\.mine\.only: the miniature is taken whole; remove it"):
        pull.main("mine")


def test_what_a_person_must_fetch_is_named_with_its_page_and_size(project, tmp_path):
    make_project(tmp_path)
    project("up")
    with pytest.raises(
        InputError, match=r"got nothing; .*: a person fetches wikihowSep\.csv \(1\.2 GB, a button on the page; .*\) at "
    ):
        pull.main("mine")
    Path("up").mkdir()
    with pytest.raises(InputError, match=r"needs \*\.csv, got no such file; .*puts it into up$"):
        pull.main("mine")
