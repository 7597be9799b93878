"""The fast reader of dumps against the XML parser's, which is the specification."""

import io
import random
from html import escape
from pathlib import Path

import py7zr
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core.rows import Tally
from stages.core.xml_rows import Irregular
from stages.sources import stack_exchange, stack_exchange_index, stack_exchange_lines
from stages.sources.stack_exchange import Limits, dumps, first_pass, second_pass, whole_site

ORIGIN = Path(__file__).parents[2] / "../shared/data/origin/stack_exchange"
LIMITS = Limits(max_post_chars=60, max_expansion=10**6, dialogues=True, memory_bytes=2**20)


def xml(table, rows, *, end="\r\n", tail="\r\n"):
    lines = [f"  <row{''.join(f' {key}={value}' for key, value in row)} />" for row in rows]
    return f'\ufeff<?xml version="1.0" encoding="utf-8"?>{end}<{table}>{end}'.encode() + "".join(
        f"{line}{end}" for line in lines
    ).encode() + f"</{table}>{tail}".encode()  # fmt: skip


def quoted(value):
    text = escape(str(value), quote=False).replace('"', "&quot;").replace("\n", "&#xA;").replace("\r", "&#xD;")
    return f'"{text.replace(chr(9), "&#x9;")}"'


def slow(dump, limits=LIMITS):
    tally = Tally(stack_exchange.UNIT)
    return list(whole_site(dump, limits, tally)), tally


def fast(dump, work, limits=LIMITS):
    tally = Tally(stack_exchange.UNIT)
    work.mkdir()
    ranges = first_pass(dump, work, limits, map)
    return [row for bounds in ranges for row in second_pass(dump, work, *bounds, limits, tally)], tally


def account(tally):
    return tally.n_read, tally.n_further, +tally.left_out, +tally.aside


def only(folder, limits=LIMITS):
    (dump,) = dumps(folder, source="s", groups={}, default_group="g", limits=limits)
    return dump


def assert_alike(folder, work):
    expected, found = slow(only(folder)), fast(only(folder), work)
    assert found[0] == expected[0]
    assert account(found[1]) == account(expected[1])
    return expected[0]


ids = st.integers(1, 30)
users = st.one_of(st.none(), st.integers(-1, 3))
texts = st.text(st.sampled_from("ab \n\t&<>\"'é;#x\u2028@"), max_size=12) | st.sampled_from(
    ["<p>" + "a" * 60 + "</p>", "&amp;lt;", "@Ann yes", "<ul><li>b", 'Score="9"', ' ParentId="3"']
)
posts = st.fixed_dictionaries(
    {
        "Id": ids,
        "PostTypeId": st.sampled_from([1, 1, 2, 2, 2, 5]),
        "ParentId": st.one_of(st.none(), ids),
        "CreationDate": st.just("2016-08-02T15:40:24.820"),
        "Score": st.integers(-3, 12),
        "Body": texts,
        "OwnerUserId": users,
        "OwnerDisplayName": st.one_of(st.none(), texts),
        "Title": st.one_of(st.none(), texts),
        "ContentLicense": st.sampled_from([None, "CC BY-SA 4.0"]),
    }
)
comments = st.fixed_dictionaries(
    {
        "Id": ids,
        "PostId": ids,
        "Score": st.just(0),
        "Text": texts,
        "CreationDate": st.just("2020-01-01"),
        "UserId": users,
    }
)
names = st.fixed_dictionaries(
    {"Id": st.integers(-1, 3), "Reputation": st.just(1), "CreationDate": st.just("d"), "DisplayName": texts}
)


def some(rows, rng):
    """Rows as attributes in the usual order or in another, those that are None left out."""
    listed = [[(key, quoted(value)) for key, value in row.items() if value is not None] for row in rows]
    for row in listed:
        if rng.random() < 0.2:
            rng.shuffle(row)
    return listed


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(posts, max_size=14), st.lists(names, max_size=4), st.lists(comments, max_size=14), st.randoms())
def test_it_gives_what_the_xml_parser_gives(tmp_path_factory, posts, names, comments, rng):
    folder = tmp_path_factory.mktemp("dump")
    (folder / "in" / "a.se").mkdir(parents=True)
    for table, rows in (("posts", posts), ("users", names), ("comments", comments)):
        data = xml(table, some(rows, rng), end=rng.choice(["\n", "\r\n"]), tail=rng.choice(["", "\n", "\r\n\r\n"]))
        (folder / "in" / "a.se" / f"{table.capitalize()}.xml").write_bytes(data)
    assert_alike(folder / "in", folder / "work")


def dump_of(n, rng):
    """Posts, users and comments with threads, larger than a block."""
    made = {"posts": [], "users": [], "comments": []}
    for i in range(1, n):
        kind = 1 if i % 3 == 1 else 2
        row = [("Id", i), ("PostTypeId", kind)] + ([("ParentId", rng.randint(max(1, i - 50), i))] if kind == 2 else [])
        row += [("CreationDate", "2019-01-01T00:00:00"), ("Score", rng.randint(-2, 12)), ("Body", f"<p>{'é&' * 9}</p>")]
        row += [("OwnerUserId", rng.randint(1, 3)), ("Title", f"T {i}?"), ("ContentLicense", "CC BY-SA 4.0")]
        made["posts"].append([(key, quoted(value)) for key, value in row])
        for _ in range(rng.randint(0, 4)):
            number = len(made["comments"]) + 1
            row = [("Id", number), ("PostId", i), ("Score", 0), ("Text", "Why?"), ("UserId", rng.randint(1, 3))]
            made["comments"].append([(key, quoted(value)) for key, value in row])
    made["users"] = [[("Id", f'"{i}"'), ("DisplayName", f'"user {i}"')] for i in range(1, 9)]
    return {table: xml(table, rows) for table, rows in made.items()}


def seven_zip(path, tables):
    with py7zr.SevenZipFile(path, "w") as file:
        for table, data in tables.items():
            file.writef(io.BytesIO(data), f"{table.capitalize()}.xml")


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_many_ranges_and_runs_give_the_same(tmp_path, monkeypatch, form):
    monkeypatch.setattr(stack_exchange_index, "_RANGE_BYTES", 5000)
    monkeypatch.setattr(stack_exchange_index, "_BLOCK_BYTES", 700)
    monkeypatch.setattr(stack_exchange_lines, "_BATCH_BYTES", 3000)
    tables = dump_of(900, random.Random(0))
    folder = tmp_path / "in"
    if form == "archive":
        folder.mkdir()
        seven_zip(folder / "a.se.7z", tables)
    else:
        (folder / "a.se").mkdir(parents=True)
        for table, data in tables.items():
            (folder / "a.se" / f"{table.capitalize()}.xml").write_bytes(data)
    rows = assert_alike(folder, tmp_path / "work")
    assert len(rows) > 100
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert sum(row.group == "stack_exchange_dialogue" for row in rows) > 3


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('<row Id="1" PostTypeId="1" Score="1" Body="a\nb" />', "end with its line"),
        ('<row Id="1" PostTypeId="1" Score="1"/><row Id="2" PostTypeId="1" Score="1" />', "different names"),
        ('<row Id="1" PostTypeId="1" CreationDate="" Score="1" Body="<" />', "more than a row"),
        ('<row Id="1" PostTypeId="1" Score="1" />"a" />', "different names"),
        ('<row Id="1" />"a/>', "quotes are not pairs"),
        ('<!-- a --><row Id="1" />', "different names"),
        ('<row Id="1" PostTypeId="1" Score="1" Body="a\tb" />', "control"),
        ('<row Id="01" PostTypeId="1" Score="1" />', "not written as usual"),
        ('<row Id="1" PostTypeId="1" Score="+1" />', "not written as usual"),
        ("<row Id='1' PostTypeId='1' Score='1' />", "quotes are not pairs"),
        ('<row Id="1" Id="1" PostTypeId="1" Score="1" />', "different names"),
        ('<row Id="1" PostTypeId="2" Score="1" Body="" Body="" ParentId="1"/>', "different names"),
        ('<row Id="1" PostTypeId="1" />', "without id or score"),
        ('<row PostTypeId="1" Score="1" />', "without id or score"),
        ("", "end with its line"),
    ],
)
def test_what_is_not_one_usual_row_a_line_is_left_to_the_xml_parser(tmp_path, line, why):
    (tmp_path / "a.se").mkdir()
    (tmp_path / "a.se" / "Posts.xml").write_bytes(f"<posts>\n{line}\n</posts>".encode())
    with pytest.raises(Irregular, match=why):
        fast(only(tmp_path), tmp_path / "work")


@pytest.mark.parametrize("body", ["&a;", "&#0;", "&#xD800;", "&amp", "\ufffe", "&#xFFFF;"])
def test_a_reference_or_character_that_xml_does_not_know_is_left_to_the_xml_parser(tmp_path, body):
    rows = (
        '<row Id="1" PostTypeId="1" Score="1" Title="T" />',
        f'<row Id="2" PostTypeId="2" ParentId="1" Score="1" Body="{body}" />',
    )
    (tmp_path / "a.se").mkdir()
    (tmp_path / "a.se" / "Posts.xml").write_bytes("<posts>\n{}\n{}\n</posts>".format(*rows).encode())
    with pytest.raises(Irregular, match="XML does not know"):
        fast(only(tmp_path), tmp_path / "work")


@pytest.mark.parametrize(
    "data",
    [
        b"<posts>\n",
        b"<posts>\n</posts>\n<posts>\n</posts>\n",
        b"<posts>\n</posts> a",
        b'<!DOCTYPE posts [<!ENTITY a "b">]>\n<posts>\n</posts>',
        b'<?xml version="1.0" encoding="latin-1"?>\n<posts>\n</posts>',
        b"<users>\n</users>",
        b"",
    ],
)
def test_a_table_that_is_not_as_in_a_dump_is_left_to_the_xml_parser(tmp_path, data):
    (tmp_path / "a.se").mkdir()
    (tmp_path / "a.se" / "Posts.xml").write_bytes(data)
    with pytest.raises(Irregular):
        fast(only(tmp_path), tmp_path / "work")


@pytest.mark.skipif(not ORIGIN.exists(), reason="needs ../shared/data")
@pytest.mark.slow
def test_the_real_archives_are_read_alike(tmp_path):
    limits = Limits(200_000, 200, dialogues=True)
    for dump in dumps(ORIGIN, source="s", groups={}, default_group="g", limits=limits):
        expected, found = slow(dump, limits), fast(dump, tmp_path / dump.site.name, limits)
        assert found[0] == expected[0]
        assert account(found[1]) == account(expected[1])
