import csv
import json
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from stages import extract, pull
from stages.core.dumps import SITE_GROUPS
from stages.core.rows import Candidate, Prompt, Tally, turns
from stages.errors import InputError
from stages.extract import read_catalog, run
from stages.runtime.files import read_table
from stages.schema import CANDIDATE, LEFT_OUT, PROMPT

ROOT = Path(__file__).parents[1]
CATALOG = ROOT / "data/catalog/stack_exchange.csv"
FORMATS = ("stack_exchange", "wikihow", "reddit", "natural_instructions", "authored")

PARAMS = """
miniature: {seed: 0, n_people: 300}
sources: {%s}
pull: {max_file_bytes: 100000000, max_total_bytes: 1, concurrency: 1, timeout_s: 1.0, max_attempts: 1}
extract: {default_group: null, max_post_chars: 200000, max_expansion: 200}
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


def test_run_sorts_by_id_and_keeps_empty_tables_typed():
    found = run([candidate("s:b"), candidate("s:a")], Tally("rows", 2))
    assert found.candidates["id"].to_list() == ["s:a", "s:b"]
    assert dict(found.candidates.schema) == CANDIDATE
    assert (found.prompts.height, dict(found.prompts.schema)) == (0, PROMPT)


def test_run_joins_batches(monkeypatch):
    monkeypatch.setattr(extract, "_BATCH_ROWS", 3)
    rows = [candidate(f"s:{i}") for i in range(7)] + [Prompt("s:p", "dev", "s", "g", "d", turns("q"))]
    found = run(rows, Tally("rows", 8))
    assert (found.candidates.height, found.prompts.height) == (7, 1)


def test_an_id_given_twice_is_an_error():
    with pytest.raises(InputError, match="s:1: ids must be unique"):
        run([candidate(), candidate()], Tally("rows", 2))


def test_a_source_without_anything_to_keep_is_an_error():
    with pytest.raises(
        InputError, match="must hold something to keep, got 0 rows and 0 prompts of 3 posts; left out: 3 empty"
    ):
        run([], Tally("posts", 3, Counter(empty=3)))
    with pytest.raises(InputError, match=r"^sources\.mine, data/pull/mine: must hold .*; correct its `origin`"):
        run([], Tally("posts"), where="sources.mine, data/pull/mine")


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
