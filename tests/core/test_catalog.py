import csv
import re
from collections import Counter
from pathlib import PurePath
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import InputError
from stages.core.catalog import (
    Known,
    Listed,
    Pin,
    idle_patterns,
    is_safe,
    read_catalog,
    read_files_xml,
    read_pins,
    read_sha256sums,
    selected,
    without_substitutes,
    written_pins,
)
from stages.core.formats import Format, is_raw_file
from tests.workspace import ROOT

FOLDER = ROOT / "data/catalog"
HEAD = "file,about,sum,unless,by_hand\n"


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------- the committed ones


@pytest.mark.parametrize("format_", get_args(Format))
def test_every_format_has_a_catalog_of_files_that_it_reads(format_):
    path = FOLDER / f"files/{format_}.csv"
    files = read_catalog(path.read_text(), where=str(path))
    assert files
    assert all(is_raw_file(PurePath(file.name), format_) for file in files)


def test_the_exchanges_are_as_many_as_the_papers():
    """LIMA s2.1: 75 STEM and 99 other; the README says which five of 179 are left out."""
    groups = {row["site"]: row["group"] for row in rows("stack_exchange.csv")}
    sites = {row["site"] for row in rows("files/stack_exchange.csv")}
    assert Counter(groups[site] for site in sites) == {"stack_exchange_stem": 75, "stack_exchange_other": 99}
    readme = (FOLDER / "README.md").read_text()
    left_out = {"es.stackoverflow.com", "ja.stackoverflow.com", "pt.stackoverflow.com", "ru.stackoverflow.com",
                "rus.stackexchange.com"}  # fmt: skip
    assert all(site in readme for site in left_out)
    assert not left_out & {*sites, *groups}
    assert len(sites | left_out) == 179


def test_archives_are_named_after_their_sites():
    for row in rows("files/stack_exchange.csv"):
        assert re.fullmatch(rf"{re.escape(row['site'])}(-(Posts|Users|Comments))?\.7z", row["file"])


def test_the_tasks_are_of_the_categories_that_the_readme_names():
    found = rows("files/natural_instructions.csv")
    readme = (FOLDER / "README.md").read_text()
    assert len(found) == 89
    assert {row["category"] for row in found} <= {line.strip("- ") for line in readme.splitlines()}
    chosen = re.compile("classification|identification|incorrect|choose")
    assert [row["file"] for row in found if chosen.search(row["file"])] == []


def test_the_readme_names_every_page_that_a_person_needs():
    readme = (FOLDER / "README.md").read_text()
    for format_ in get_args(Format):
        assert all(row["by_hand"] in readme for row in rows(f"files/{format_}.csv"))


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("file,about\n", r"^c: must have the columns file, about, sum, unless, by_hand, got others"),
        ("", r"^c: must have the columns"),
        (f"{HEAD}a.7z,,\n", r"as many cells as columns, got other in 'a\.7z'"),
        (f"{HEAD}a.7z,,,,,\n", r"as many cells as columns"),
        (f"{HEAD}../a.7z,,,,\n", r"must hold names of files below the origin, got '\.\./a\.7z'"),
        (f"{HEAD}a.7z,,,,\na.7z,,,,\n", r"must name each file once"),
        (f"{HEAD}a.7z,,md5:00,,\n", r"sum must be ALGORITHM:HEX with one of sha256, git_blob, sha1, md5, got 'md5:00'"),
        (f"{HEAD}a.7z,,crc:00,,\n", r"got 'crc:00'"),
        (f"{HEAD}a.7z,,,b.7z,\n", r"`unless` must be another file of the list, got 'b\.7z'"),
        (f"{HEAD}a.7z,,,a.7z,\n", r"`unless` must be another file"),
    ],
)
def test_a_catalog_of_another_form_is_refused(text, match):
    with pytest.raises(InputError, match=match):
        read_catalog(text, where="c")


def test_a_catalog_may_say_more():
    text = f"{HEAD.strip()},site\na.7z,1 GB,MD5:{'A' * 32},,https://x,s\n".replace("MD5", "md5")
    assert read_catalog(text, where="c") == [Listed("a.7z", "1 GB", {"md5": "a" * 32}, "", "https://x")]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "./a", "a\\b", "c:a", ".a", "a/.b", "a\nb", "a\0b", "x" * 256,
     "a*", "a?b"],
)  # fmt: skip
def test_names_that_could_lead_elsewhere_are_unsafe(name):
    assert not is_safe(name)


@given(st.text(max_size=20))
def test_a_safe_name_stays_below_its_folder(name):
    if is_safe(name):
        parts = name.split("/")
        assert all(part not in ("", ".", "..") for part in parts)
        assert "\0" not in name


PATTERNS = st.lists(st.sampled_from(["a*", "*", "b?", "!a*", "!*1", "c1", "!zz"]), max_size=4)


@given(PATTERNS)
def test_selection_is_what_its_docstring_says(only):
    names = ["a1", "a2", "b1", "c1"]
    wanted = [
        name for name in names if not [p for p in only if p[0] != "!"] or _any(name, [p for p in only if p[0] != "!"])
    ]
    assert selected(names, only) == [name for name in wanted if not _any(name, [p[1:] for p in only if p[0] == "!"])]
    assert selected(names, None) == names


def _any(name: str, patterns: list[str]) -> bool:
    """The slow obvious way, for the patterns above."""
    return any(re.fullmatch(pattern.replace("*", ".*").replace("?", "."), name) for pattern in patterns)


def test_patterns_that_fit_nothing_are_found():
    assert idle_patterns(["a1"], ["a*", "b*", "!c", "!a1"]) == ["b*", "!c"]
    assert idle_patterns(["a1"], None) == []


def listed(name: str, unless: str = "") -> Listed:
    return Listed(name, "", {}, unless, "")


PAIR = [listed("one"), listed("two-a", "one"), listed("two-b", "one"), listed("more")]


@pytest.mark.parametrize(
    ("there", "is_final", "expected"),
    [
        ({"one", "more"}, True, ["one", "more"]),
        ({"one", "two-a", "two-b", "more"}, True, ["one", "more"]),
        ({"two-a", "two-b", "more"}, True, ["two-a", "two-b", "more"]),
        ({"two-a"}, True, ["two-a", "two-b", "more"]),  # two-b and more will be missed
        (set(), True, ["one", "more"]),
        (set(), False, ["one", "two-a", "two-b", "more"]),
        ({"more"}, False, ["one", "two-a", "two-b", "more"]),
        ({"two-b"}, False, ["two-a", "two-b", "more"]),
        ({"one"}, False, ["one", "more"]),
    ],
)
def test_a_file_or_its_substitutes_but_not_both(there, is_final, expected):
    assert [file.name for file in without_substitutes(PAIR, there, is_final=is_final)] == expected


def test_substitutes_alone_are_files_like_others():
    rest = PAIR[1:]
    for there in (set(), {"two-a"}):
        assert without_substitutes(rest, there, is_final=True) == rest


def test_sums_as_sha256sum_writes_them():
    digits = "0123456789abcdef" * 4
    text = f"# sums\n{digits}  a.7z\n{digits.upper()} *./b/c d.7z\r\n\n{digits[1:]}  short.7z\n<html>\n"
    known = Known("SHA256SUMS", None, {"sha256": digits})
    assert read_sha256sums(text) == {"a.7z": known, "b/c d.7z": known}


def test_the_list_of_archive_org():
    sha1, md5 = "a" * 40, "b" * 32
    text = (
        f'<?xml version="1.0"?><files><file name="a.7z" source="original"><mtime>1</mtime><size>5</size>'
        f"<md5>{md5}</md5><crc32>1</crc32><sha1>{sha1}</sha1><format>7z</format></file>"
        f'<file name="b&amp;c.7z"><size>x</size></file></files>'
    )
    assert read_files_xml(text.encode(), says="l") == {
        "a.7z": Known("l", 5, {"md5": md5, "sha1": sha1}),
        "b&c.7z": Known("l", None, {}),
    }


@pytest.mark.parametrize(
    "text", ["", "no list", "<files><file name='a'>", "<!DOCTYPE html><p>&nbsp;", "<html>&x;</html>"]
)
def test_what_is_no_list_says_nothing(text):
    assert read_files_xml(text.encode(), says="l") == {}


def test_a_list_with_entities_is_refused():
    """A billion laughs, in short."""
    text = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><files>&b;</files>'
    with pytest.raises(InputError, match=r"^l: must declare no document type"):
        read_files_xml(text.encode(), says="l")


def test_pins_read_back_as_they_were_written():
    pins = {"b.7z": Pin(5, "0" * 64, "https://h/b.7z"), "a, b.7z": Pin(0, "f" * 64, "s3://b/a, b.7z")}
    text = written_pins(pins)
    assert read_pins(text, where="p") == pins
    assert text.startswith('file,bytes,sha256,address\n"a, b.7z",0,')
