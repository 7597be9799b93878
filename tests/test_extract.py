import csv
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import py7zr
import pytest

from stages import extract, pull
from stages.common.errors import InputError
from stages.common.files import read_table
from stages.core.dumps import SITE_GROUPS
from stages.core.rows import Candidate, Prompt, Tally, turns
from stages.extract import read_catalog, run, write
from stages.runtime import shards as shards_module
from stages.schema import CANDIDATE, LEFT_OUT, PROMPT

ROOT = Path(__file__).parents[1]
CATALOG = ROOT / "data/catalog/stack_exchange.csv"
FORMATS = ("stack_exchange", "wikihow", "reddit", "natural_instructions", "authored")

PARAMS = """
miniature: {seed: 0, n_people: 300}
sources: {%s}
pull: {max_file_bytes: 100000000, max_total_bytes: 1, concurrency: 1, timeout_s: 1.0, max_attempts: 1}
extract: {default_group: null, max_post_chars: 200000, max_expansion: 200, dialogues: false, memory_mb: 64}
"""


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """The miniature's five sources, pulled and extracted: a folder."""
    folder = tmp_path_factory.mktemp("project")
    sources = ", ".join(f"{name}: {{format: {name}, origin: miniature}}" for name in FORMATS)
    (folder / "params.yaml").write_text(PARAMS % sources)
    (folder / "data/catalog").mkdir(parents=True)
    (folder / "data/catalog/stack_exchange.csv").write_bytes(CATALOG.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in FORMATS:
            pull.main(name)
            extract.main(name)
    return folder


def tables(folder, source):
    return (
        read_table(folder / f"data/extract/{source}.parquet", CANDIDATE),
        read_table(folder / f"data/extract/{source}.prompts.parquet", PROMPT),
    )


@pytest.mark.parametrize("source", FORMATS)
def test_every_miniature_source_gives_rows_with_its_id_and_group(extracted, source):
    candidates, prompts = tables(extracted, source)
    assert candidates.height > 100
    for table in (candidates, prompts):
        assert table["id"].is_sorted()
        assert table["id"].is_unique().all()
        assert table["id"].str.starts_with(f"{source}:").all()
        assert table.select("source", "domain", "group").null_count().sum_horizontal().item() == 0
    roles = candidates["messages"].list.eval(pl.element().struct.field("role"))
    assert roles.list.first().unique().to_list() == ["user"]
    assert roles.list.last().unique().to_list() == ["assistant"]


def test_the_groups_are_those_of_the_quotas(extracted):
    groups = {group for source in FORMATS for table in tables(extracted, source) for group in table["group"]}
    assert groups == {
        "stack_exchange_stem",
        "stack_exchange_other",
        "wikihow",
        "writing_prompts",
        "ask_reddit",
        "natural_instructions",
        "authored",
    }


def test_prompts_come_from_the_sources_that_have_them(extracted):
    n = {source: Counter(tables(extracted, source)[1]["split"]) for source in FORMATS}
    assert n["authored"]["dev"] > 0
    assert n["authored"]["test"] > 0
    assert set(n["reddit"]) == {None}
    assert not n["stack_exchange"] | n["wikihow"] | n["natural_instructions"]


def test_nothing_of_the_markup_is_left_in_the_miniature(extracted):
    candidates, _ = tables(extracted, "stack_exchange")
    answers = candidates["messages"].list.last().struct.field("content")
    assert not answers.str.contains(r"</?(?:p|ul|ol|li|pre|a|em|strong|blockquote)\b").any()


def test_the_same_input_gives_the_same_bytes(extracted, monkeypatch):
    monkeypatch.chdir(extracted)
    for source in ("stack_exchange", "reddit"):
        paths = [Path(f"data/extract/{source}{suffix}.parquet") for suffix in ("", ".prompts")]
        before = [path.read_bytes() for path in paths]
        extract.main(source)
        assert [path.read_bytes() for path in paths] == before


def test_one_line_of_counts_adds_up(extracted, monkeypatch, capsys):
    monkeypatch.chdir(extracted)
    extract.main("reddit")
    (line,) = capsys.readouterr().out.splitlines()
    counted = re.fullmatch(
        r"extract reddit: (\d+) rows and (\d+) prompts of (\d+) submissions; left out: (.*); besides: .*", line
    )
    left_out = sum(int(n) for n in re.findall(r"(?:^|, )(\d+) ", counted[4]))
    assert int(counted[1]) + int(counted[2]) + left_out == int(counted[3])


def test_a_source_that_was_not_pulled_names_the_remedy(extracted, monkeypatch):
    monkeypatch.chdir(extracted)
    Path("data/pull/wikihow").rename("data/pull/moved")
    with pytest.raises(InputError, match=r"data/pull/wikihow: no such folder; `dvc repro pull@wikihow` makes it"):
        extract.main("wikihow")
    Path("data/pull/moved").rename("data/pull/wikihow")


def candidate(id_="s:1"):
    return Candidate(id_, "s", "d", "g", None, turns("q", "a"))


def written(folder, rows, tally=None, memory_bytes=2**24):
    """The two tables that `run` and `write` make of rows."""
    parts = run(rows, tally or Tally("rows", len(rows)), folder / "parts", memory_bytes=memory_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write("s", parts, where="sources.s, data/pull/s")
        return tables(folder, "s")


def test_rows_are_sorted_by_id_and_empty_tables_typed(tmp_path):
    candidates, prompts = written(tmp_path, [candidate("s:b"), candidate("s:a")])
    assert candidates["id"].to_list() == ["s:a", "s:b"]
    assert dict(candidates.schema) == CANDIDATE
    assert (prompts.height, dict(prompts.schema)) == (0, PROMPT)


def test_prompts_are_apart_from_candidates(tmp_path):
    rows = [candidate(f"s:{i}") for i in range(7)] + [Prompt("s:p", "dev", "s", "g", "d", turns("q"))]
    candidates, prompts = written(tmp_path, rows)
    assert (candidates.height, prompts.height) == (7, 1)


def test_an_id_given_twice_is_an_error(tmp_path):
    with pytest.raises(InputError, match="s:1: ids must be unique"):
        written(tmp_path, [candidate(), candidate()])


def test_a_source_without_anything_to_keep_is_an_error(tmp_path):
    with pytest.raises(
        InputError,
        match=r"^sources\.s, data/pull/s: must hold something to keep, got 0 rows and 0 prompts of 3 posts; "
        "left out: 3 empty; correct its `origin`",
    ):
        written(tmp_path, [], Tally("posts", 3, Counter(empty=3)))


def test_a_reader_that_loses_count_is_a_fault_of_ours(tmp_path):
    with pytest.raises(AssertionError, match="lost count"):
        written(tmp_path, [candidate()], Tally("rows", 2))


def test_rows_of_unknown_origin_are_told(tmp_path, capsys):
    known = candidate()._replace(url="http://a", author="Ann", license="CC0", created="2020-01-01")
    unknown = [
        {"license": None, "created": None},
        {"author": None, "created": None},
        {"url": None, "created": None},
        {},
    ]
    rows = [known._replace(id=f"s:{i}", **cells) for i, cells in enumerate(unknown)]
    written(tmp_path, rows)
    assert (
        capsys.readouterr()
        .out.strip()
        .endswith(
            "; 1 rows of unknown licence, 1 rows of unknown author, 3 rows of unknown date, 1 rows of unknown address"
        )
    )


def test_the_catalogue_has_the_miniature_and_two_groups():
    groups = read_catalog(CATALOG)
    assert {site: groups.get(site) for site in SITE_GROUPS} == SITE_GROUPS
    assert set(groups.values()) == {"stack_exchange_stem", "stack_exchange_other"}
    assert groups["math.stackexchange.com"] == groups["stackoverflow.com"] == "stack_exchange_stem"
    assert groups["cooking.stackexchange.com"] == "stack_exchange_other"
    assert list(groups) == sorted(groups)
    assert not [site for site in groups if ".meta." in site]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have two columns"),
        ("site\na\n", "must have two columns"),
        ("site,group\na\n", "must have two columns"),
        ("site,group\na,\n", "must have two columns"),
        ("site,group\na,b\na,c\n", "must name each site once, got 1 repeated"),
    ],
)
def test_a_catalogue_of_another_form_is_an_error(tmp_path, text, message):
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_catalog(path)


def test_a_missing_catalogue_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_catalog(tmp_path / "c.csv")


def test_what_is_no_row_is_written_by_reason():
    tally = Tally("posts", 6, Counter({"unanswered": 3, "deleted": 2, "empty": 0}))
    table = extract.left_out("mine", tally)
    assert dict(table.schema) == LEFT_OUT
    assert table.rows() == [("mine", "deleted", 2), ("mine", "unanswered", 3)]


def test_a_format_that_does_not_fit_the_files_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS % "mine: {format: wikihow, origin: miniature}")
    Path("data/pull/mine").mkdir(parents=True)
    with Path("data/pull/mine/a.csv").open("w", newline="") as file:
        csv.writer(file).writerow(("id", "text"))
    with pytest.raises(InputError, match=r"a\.csv: must have the columns"):
        extract.main("mine")
    Path("data/pull/mine/a.csv").write_text(json.dumps({"a": 1}))
    with pytest.raises(InputError, match=r"a\.csv: must have the columns"):
        extract.main("mine")
    assert not Path("data/extract").exists()


# --- sites -------------------------------------------------------------------------------------------------------


def posts(n, body):
    rows = "".join(
        f'  <row Id="{i}" PostTypeId="1" CreationDate="2020-01-01" Score="1" Body="" Title="T {i}?" />\n'
        f'  <row Id="{n + i}" PostTypeId="2" ParentId="{i}" CreationDate="2020-01-01" Score="1" Body="{body}" />\n'
        for i in range(1, n + 1)
    )
    return f"<posts>\n{rows}</posts>\n"


@pytest.fixture
def sites(tmp_path, monkeypatch):
    """Sites a and b, the second many times larger, as source `mine`; a function that runs `extract mine`."""
    monkeypatch.chdir(tmp_path)
    text = (PARAMS % "mine: {format: stack_exchange, origin: miniature}").replace(
        "default_group: null", "default_group: g"
    )
    Path("params.yaml").write_text(text)
    Path("data/catalog").mkdir(parents=True)
    Path("data/catalog/stack_exchange.csv").write_bytes(CATALOG.read_bytes())
    for site, n in (("a", 20), ("b", 4000)):
        Path(f"data/pull/mine/{site}").mkdir(parents=True)
        Path(f"data/pull/mine/{site}/Posts.xml").write_text(posts(n, "&lt;p&gt;An answer.&lt;/p&gt;" * 5))
    return tmp_path


def start():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": "."}
    return subprocess.Popen([sys.executable, "-m", "stages.extract", "mine"], env=environment)


def shards():
    """Finished shards, and when each was."""
    found = Path(".cache/extract/mine").glob("[!.]*/manifest.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
@pytest.mark.usefixtures("sites")
def test_a_killed_run_goes_on_at_the_last_finished_site_and_gives_the_same_bytes():
    assert start().wait() == 0
    expected = Path("data/extract/mine.parquet").read_bytes()
    shutil.rmtree(".cache")
    Path("data/extract/mine.parquet").unlink()
    run = start()
    while not (finished := shards()):
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    run.kill()
    run.wait()
    assert len(finished) == 1
    assert not Path("data/extract/mine.parquet").exists()
    assert start().wait() == 0
    assert Path("data/extract/mine.parquet").read_bytes() == expected
    assert shards().items() > finished.items()
    assert [path for path in Path(".cache/extract/mine").iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("sites")
def test_finished_sites_are_not_read_again_by_the_one_process_that_reads_archives():
    for site in ("a", "b"):
        shutil.rmtree(f"data/pull/mine/{site}")
        with py7zr.SevenZipFile(f"data/pull/mine/{site}.se.7z", "w") as file:
            file.writestr(posts(3, "b"), "Posts.xml")
    assert start().wait() == 0
    finished = shards()
    assert len(finished) == 2
    assert start().wait() == 0
    assert shards() == finished


def article(*titles):
    return "title,heading,paragraph\n" + "".join(f"How to {title},Go.,Far.\n" for title in titles)


def task(n):
    languages = dict.fromkeys(("Input_language", "Output_language", "Instruction_language"), "English")
    instances = [{"id": f"{n}-{i}", "input": "in", "output": "out"} for i in range(3)]
    return json.dumps({"Definition": "Do.", **languages, "Instances": instances})


def submissions(*ids):
    return "id,subreddit,title,selftext,score\n" + "".join(f"{id_},AskReddit,{id_}?,,3\n" for id_ in ids)


@pytest.mark.parametrize(
    ("format_", "files"),
    [
        ("wikihow", {"a.csv": article("Go", "Stop"), "b.csv": article("Run", "Stop", "Go!")}),
        ("reddit", {"a.csv": submissions("a1", "a2"), "b.csv": submissions("a3", "a1")}),
        ("natural_instructions", {"task1_a.json": task(1), "task2_b.json": task(2)}),
    ],
)
def test_files_that_were_read_before_a_fault_are_not_read_again(tmp_path, monkeypatch, capsys, format_, files):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shards_module, "CACHE", Path(".cache"))
    Path("params.yaml").write_text(PARAMS % f"mine: {{format: {format_}, origin: miniature}}")
    folder = Path("data/pull/mine")
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    tables = ("mine.parquet", "mine.prompts.parquet", "mine.left_out.parquet")
    expected, told = run_here(*tables), capsys.readouterr().out
    shutil.rmtree(".cache")
    last = sorted(files)[-1]
    (folder / last).write_text("{")
    with pytest.raises(InputError, match=last):
        extract.main("mine")
    kept = shards()
    assert len(kept) == 1
    (folder / last).write_text(files[last])
    assert run_here(*tables) == expected
    assert capsys.readouterr().out == told
    assert shards().items() > kept.items()
    assert len(shards()) == 2


@pytest.mark.usefixtures("sites")
@pytest.mark.parametrize(
    ("packed", "max_bytes", "what"),
    [
        (False, 100, "manifest|Posts|posts|candidates"),
        (False, 50_000, r"posts-000000-000000: cannot be written, \d+ requested and \d+ written"),  # numpy's words
        (True, 2_000, r"posts\.zst: cannot be written, \[Errno 27\] File too large"),
        (True, 100_000, "posts-000000-000000: cannot be written"),
    ],
)
def test_a_full_disk_is_one_sentence_wherever_it_is_met(monkeypatch, packed, max_bytes, what):
    """No file may grow longer: what the system then says comes from the same call as of a full disk."""
    monkeypatch.setattr(shards_module, "CACHE", Path(".cache"))
    shutil.rmtree("data/pull/mine/a")
    if packed:
        with py7zr.SevenZipFile("data/pull/mine/b.se.7z", "w") as file:
            file.writestr(Path("data/pull/mine/b/Posts.xml").read_text(), "Posts.xml")
        shutil.rmtree("data/pull/mine/b")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
    try:
        with pytest.raises(InputError, match=rf"({what}).*; free space or mend its rights$"):
            extract.main("mine")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not Path("data/extract").exists()
    assert shards() == {}


def run_here(*names):
    extract.main("mine")
    return [Path(f"data/extract/{name}").read_bytes() for name in names or ("mine.parquet", "mine.left_out.parquet")]


@pytest.mark.usefixtures("sites")
def test_a_changed_site_is_read_anew_and_the_others_are_not(monkeypatch):
    monkeypatch.setattr(shards_module, "CACHE", Path(".cache"))
    run_here()
    before = shards()
    path = Path("data/pull/mine/a/Posts.xml")
    path.write_text(posts(21, "b"))
    assert pl.read_parquet(io.BytesIO(run_here("mine.parquet")[0])).height == 4021
    assert len(before.items() & shards().items()) == 1
    assert len(shards()) == 2  # what no run will ask for again is gone


@pytest.mark.usefixtures("sites")
def test_a_shard_that_was_altered_is_made_anew(monkeypatch, capsys):
    monkeypatch.setattr(shards_module, "CACHE", Path(".cache"))
    expected = run_here()
    for path in Path(".cache/extract/mine").glob("*/candidates-*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert run_here() == expected
    assert capsys.readouterr().err.count("a kept shard is damaged") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("sites")
def test_neither_cores_nor_memory_show_in_the_bytes(monkeypatch):
    monkeypatch.setattr(shards_module, "CACHE", Path(".cache"))
    expected = run_here()
    for n_cores, memory_mb in ((1, 16), (2, 400)):
        shutil.rmtree(".cache")
        monkeypatch.setattr(extract, "n_cores", lambda n=n_cores: n)
        monkeypatch.setattr(extract, "_MIN_BYTES_A_WORKER", 1)
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(re.sub("memory_mb: [0-9]+", f"memory_mb: {memory_mb}", text))
        assert run_here() == expected


@pytest.mark.usefixtures("sites")
def test_a_site_that_is_not_one_row_a_line_is_read_all_the_same_and_told(monkeypatch, capsys):
    monkeypatch.setattr(shards_module, "CACHE", Path(".cache"))
    expected = run_here("mine.parquet")
    path = Path("data/pull/mine/a/Posts.xml")
    path.write_text(path.read_text().replace("\n", " "))
    assert run_here("mine.parquet") == expected
    assert "a is not one row a line as dumps are" in capsys.readouterr().out


@pytest.mark.usefixtures("sites")
def test_a_damaged_site_is_one_sentence_and_nothing_is_kept_of_it(monkeypatch):
    monkeypatch.setattr(shards_module, "CACHE", Path(".cache"))
    monkeypatch.setattr(extract, "n_cores", lambda: 1)
    Path("data/pull/mine/a/Posts.xml").write_text("<posts>\n")
    with pytest.raises(InputError, match=r"a/Posts\.xml: posts: must be XML, got .*truncated or damaged"):
        extract.main("mine")
    assert len(shards()) < 2  # the other may have been finished
    assert not Path("data/extract").exists()


def test_the_miniature_has_dialogues_where_they_are_asked_for(extracted, monkeypatch):
    monkeypatch.chdir(extracted)
    params = Path("params.yaml").read_text()
    before = pl.read_parquet("data/extract/stack_exchange.parquet")
    try:
        Path("params.yaml").write_text(params.replace("dialogues: false", "dialogues: true"))
        extract.main("stack_exchange")
        rows = read_table(Path("data/extract/stack_exchange.parquet"), CANDIDATE)
        assert rows.filter(pl.col("group") != "stack_exchange_dialogue").equals(before)
        dialogues = rows.filter(pl.col("group") == "stack_exchange_dialogue")
        assert dialogues.height > 10
        assert dialogues["messages"].list.len().unique().to_list() == [4]
    finally:
        Path("params.yaml").write_text(params)
        extract.main("stack_exchange")
