import io
import random
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import polars as pl
import py7zr
import pytest

from stages.common.errors import InputError
from stages.core.rows import Candidate, Tally
from stages.runtime import archives
from stages.sources.stack_exchange import UNIT, Limits, dumps, extract

ORIGIN = Path(__file__).parents[2] / "../shared/data/origin/stack_exchange"


def table(name, *rows):
    cells = ("".join(f' {key}="{escape(str(value), quote=True)}"' for key, value in row.items()) for row in rows)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\r\n<{name}>\r\n'.encode()
        + "".join(f"  <row{row} />\r\n" for row in cells).encode()
        + f"</{name}>".encode()
    )


def question(id_, title="T?", body="<p>B.</p>", score=1, **more):
    return {"Id": id_, "PostTypeId": 1, "Score": score, "Title": title, "Body": body, **more}


def answer(id_, parent, body="<p>A.</p>", score=1, **more):
    return {"Id": id_, "PostTypeId": 2, "ParentId": parent, "Score": score, "Body": body, **more}


def put(folder, site, **tables):
    (folder / site).mkdir(parents=True)
    for name, data in tables.items():
        (folder / site / f"{name}.xml").write_bytes(data)


def archive(path, **members):
    with py7zr.SevenZipFile(path, "w") as file:
        for name, data in members.items():
            file.writef(io.BytesIO(data), f"{name}.xml")


def rows(folder, *, groups=None, default_group="g", max_post_chars=1000, max_expansion=200):
    tally, found, limits = Tally(UNIT), [], Limits(max_post_chars, max_expansion)
    for dump in dumps(folder, source="s", groups=groups or {}, default_group=default_group, limits=limits):
        with TemporaryDirectory() as work, TemporaryDirectory() as made:
            tally.add(extract(dump, Path(work), Path(made), limits, map))
            for path in sorted(Path(made).iterdir()):
                found += [Candidate(**row) for row in pl.read_parquet(path).iter_rows(named=True)]
    assert tally.n_read == len(found) + tally.left_out.total()
    return found, tally


def test_a_row_holds_question_answer_and_provenance(tmp_path):
    posts = table(
        "posts",
        question(
            7, "Why  is\n it?", "<p>Since\nwhen?</p>", 4, Tags="<a><b>", AnswerCount=9, ContentLicense="CC BY-SA 4.0"
        ),
        answer(
            8, 7, "<p>So.</p>", 5, CreationDate="2016-08-02T15:40:24.820", OwnerUserId=3, ContentLicense="CC BY-SA 4.0"
        ),
    )
    put(tmp_path, "a.se", Posts=posts, Users=table("users", {"Id": 3, "DisplayName": "Ann & Bo"}))
    (row,), _ = rows(tmp_path, groups={"a.se": "stem"}, default_group=None)
    assert row._asdict() == {
        "id": "s:a.se/7",
        "source": "s",
        "domain": "a.se",
        "group": "stem",
        "score": 5,
        "messages": [
            {"role": "user", "content": "Why is it?\n\nSince when?"},
            {"role": "assistant", "content": "So."},
        ],
        "url": "https://a.se/a/8",
        "author": "Ann & Bo",
        "license": "CC BY-SA 4.0",
        "created": "2016-08-02",
        "tags": ["a", "b"],
        "title": "Why is it?",
        "body": "Since when?",
        "over_18": None,
        "prompt_score": 4,
    }


def test_the_best_answer_is_chosen_by_integer_score(tmp_path):
    put(tmp_path, "a.se", Posts=table("posts", question(1), answer(2, 1, "nine", 9), answer(3, 1, "twelve", 12)))
    assert rows(tmp_path)[0][0].messages[1]["content"] == "twelve"


def test_of_equal_scores_the_lowest_id_wins_as_an_integer(tmp_path):
    put(tmp_path, "a.se", Posts=table("posts", question(1), answer(10, 1, "ten", 0), answer(9, 1, "nine", 0)))
    assert rows(tmp_path)[0][0].messages[1]["content"] == "nine"


def test_a_negative_score_is_a_score(tmp_path):
    put(tmp_path, "a.se", Posts=table("posts", question(1, score=-2), answer(2, 1, score=-3)))
    assert (rows(tmp_path)[0][0].score, rows(tmp_path)[0][0].prompt_score) == (-3, -2)


def test_answers_may_stand_before_their_question_and_users_before_posts(tmp_path):
    posts = table("posts", answer(2, 1, OwnerUserId=5), question(1))
    archive(tmp_path / "a.se.7z", Users=table("users", {"Id": 5, "DisplayName": "Ann"}), Posts=posts)
    archive(tmp_path / "b.se.7z", Posts=posts, Users=table("users", {"Id": 5, "DisplayName": "Bo"}))
    assert [row.author for row in rows(tmp_path)[0]] == ["Ann", "Bo"]


def test_without_users_the_display_name_of_the_post_stands_in(tmp_path):
    put(tmp_path, "a.se", Posts=table("posts", question(1), answer(2, 1, OwnerDisplayName="user9")))
    assert rows(tmp_path)[0][0].author == "user9"


@pytest.mark.parametrize("in_one_line", [False, True])
def test_asker_and_answerer_are_named_and_both_their_licences(tmp_path, in_one_line):
    old, new = "CC BY-SA 3.0", "CC BY-SA 4.0"
    posts = table(
        "posts",
        question(1, OwnerUserId=3, ContentLicense=old), answer(2, 1, OwnerUserId=4, ContentLicense=new),
        question(5, OwnerDisplayName="user5", ContentLicense=new), answer(6, 5, OwnerUserId=4, ContentLicense=old),
        question(7, OwnerUserId=4, ContentLicense=new), answer(8, 7, OwnerUserId=4, ContentLicense=new),
    )  # fmt: skip
    users = table("users", {"Id": 3, "DisplayName": "Ann"}, {"Id": 4, "DisplayName": "Bo"})
    if in_one_line:  # so that the XML parser reads it
        posts = posts.replace(b"\n", b" ")
    put(tmp_path, "a.se", Posts=posts, Users=users)
    assert [(row.author, row.license) for row in rows(tmp_path)[0]] == [
        ("Bo; Ann", f"{old}; {new}"),
        ("Bo; user5", f"{old}; {new}"),
        ("Bo", new),
    ]


def test_a_dump_without_the_licence_column_is_under_the_licence_of_its_time(tmp_path):
    put(tmp_path, "a.se", Posts=table("posts", question(1), answer(2, 1)))
    assert rows(tmp_path)[0][0].license == "CC BY-SA 3.0"


def test_what_cannot_be_an_example_is_left_out_and_counted(tmp_path):
    long = "x" * 1001
    posts = table(
        "posts",
        question(1),
        question(2, body=long),
        answer(20, 2),
        question(3),
        answer(30, 3, long),
        question(4, title=" "),
        answer(40, 4),
        question(5),
        answer(50, 5, '<img src="a">'),
        question(6, body="x" * 1000),
        answer(60, 6),
        {"Id": 7, "PostTypeId": 5, "Score": 0, "Body": "a tag wiki"},
        answer(80, 8),
    )
    put(tmp_path, "a.se", Posts=posts)
    found, tally = rows(tmp_path)
    assert [row.id for row in found] == ["s:a.se/6"]
    assert tally.left_out == {
        "unanswered": 1,
        "over 1,000 characters": 2,
        "without a title": 1,
        "with an answer that has no text": 1,
    }
    assert tally.aside == {"questions missing that were answered": 1}


@pytest.mark.parametrize("ids", [(1000000001, 2), (1, 1000000010)])
def test_the_posts_that_the_publisher_invents_are_left_out(tmp_path, ids):
    put(tmp_path, "s", Posts=table("posts", question(ids[0]), answer(ids[1], ids[0]), question(5), answer(6, 5)))
    found, tally = rows(tmp_path)
    assert ([row.id for row in found], tally.left_out) == (["s:s/5"], {"invented by the publisher": 1})


def test_a_question_without_a_body_is_its_title(tmp_path):
    put(tmp_path, "a.se", Posts=table("posts", question(1, body='<p><img src="x"></p>'), answer(2, 1)))
    row = rows(tmp_path)[0][0]
    assert (row.messages[0]["content"], row.body) == ("T?", None)


def test_large_sites_come_in_one_archive_a_table(tmp_path):
    archive(tmp_path / "big.com-Posts.7z", Posts=table("posts", question(1), answer(2, 1, OwnerUserId=5)))
    archive(tmp_path / "big.com-Users.7z", Users=table("users", {"Id": 5, "DisplayName": "Ann"}))
    archive(tmp_path / "big.com-Badges.7z", Badges=table("badges", {"Id": 1}))
    (row,), _ = rows(tmp_path)
    assert (row.domain, row.author) == ("big.com", "Ann")


def test_a_site_without_group_is_an_error_that_names_file_and_remedy(tmp_path):
    put(tmp_path, "a.se", Posts=table("posts", question(1), answer(2, 1)))
    with pytest.raises(
        InputError, match=r"a\.se.Posts\.xml: site 'a\.se' .*data/catalog/stack_exchange\.csv.*default_group"
    ):
        rows(tmp_path, groups={"b.se": "stem"}, default_group=None)


@pytest.mark.parametrize(
    ("posts", "message"),
    [
        (b'<?xml version="1.0"?><!DOCTYPE posts [<!ENTITY a "b">]><posts/>', "DOCTYPE"),
        (b"<posts>&a;</posts>", "undefined entity"),
        (b'<posts><row Id="1" PostTypeId="1" Score="1" Body="', "truncated or damaged"),
        (b"", "truncated or damaged"),
        (b"<html><body/></html>", "must be <posts>, got <html>"),
        (b"<posts><post/></posts>", "must be <row>, got <post>"),
        (b'<posts>\n<row PostTypeId="1"/></posts>', "line 2: a row must have an Id, got ''"),
        (b'<posts><row Id="1" PostTypeId="1" Score="9.5"/></posts>', "row 1: Score must be an integer, got '9.5'"),
        (b'<posts><row Id="1" PostTypeId="1"/></posts>', "Score must be an integer, got ''"),
        (b'<posts><row Id="%s" PostTypeId="1" Score="1"/></posts>' % (b"9" * 5000), "must have an Id"),
    ],
)
def test_xml_that_is_damaged_or_hostile_is_one_sentence(tmp_path, posts, message):
    put(tmp_path, "a.se", Posts=posts)
    with pytest.raises(InputError, match=rf"Posts\.xml.*{message}"):
        rows(tmp_path)


def test_a_row_that_never_ends_is_refused_before_memory_is(tmp_path):
    put(tmp_path, "a.se", Posts=b'<posts><row Id="1" Body="' + b"a" * (34 * 2**20))
    with pytest.raises(InputError, match="at most 33,554,432 bytes"):
        rows(tmp_path)


def test_tables_must_lie_in_a_folder_with_the_name_of_the_site(tmp_path):
    (tmp_path / "Posts.xml").write_bytes(table("posts"))
    with pytest.raises(InputError, match="must lie in a folder named like its site"):
        rows(tmp_path)


def test_a_site_has_its_posts_once(tmp_path):
    put(tmp_path / "none", "a.se", Users=table("users"))
    with pytest.raises(InputError, match=r"must have one Posts\.xml, got 0"):
        rows(tmp_path / "none")
    put(tmp_path / "two", "a.se", Posts=table("posts"))
    archive(tmp_path / "two" / "a.se.7z", Posts=table("posts"))
    with pytest.raises(InputError, match=r"must have one Posts\.xml, got 2"):
        rows(tmp_path / "two")


def test_an_archive_that_was_cut_or_altered_is_one_sentence_or_reads_as_before(tmp_path):
    archive(tmp_path / "a.se.7z", Posts=table("posts", question(1), answer(2, 1)))
    whole = (tmp_path / "a.se.7z").read_bytes()
    before = rows(tmp_path)[0]
    rng = random.Random(0)
    damaged = [whole[:n] for n in range(0, len(whole), 7)]
    for _ in range(150):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(data))
    n_refused = 0
    for data in damaged:
        (tmp_path / "a.se.7z").write_bytes(data)
        try:
            assert rows(tmp_path)[0] == before
        except InputError as error:
            n_refused += 1
            assert "a.se.7z" in str(error)  # noqa: PT017 - both outcomes are right
    assert n_refused > 0.8 * len(damaged)


def test_an_archive_out_of_proportion_is_refused_before_it_is_unpacked(tmp_path):
    body = b'<posts><row Id="1" PostTypeId="1" Score="1" Body="' + b" " * 4_000_000 + b'"/></posts>'
    archive(tmp_path / "a.se.7z", Posts=body)
    with pytest.raises(InputError, match=r"at most 200 times its size, got 4,0.*max_expansion"):
        rows(tmp_path)
    assert rows(tmp_path, max_expansion=10**6)[1].left_out == {"unanswered": 1}


@pytest.mark.parametrize("name", ["../Posts.xml", "/Posts.xml", "a/../../Posts.xml"])
def test_members_that_lead_outside_are_refused_and_nothing_is_written(tmp_path, name):
    path = tmp_path / "in" / "a.se.7z"
    path.parent.mkdir()
    with py7zr.SevenZipFile(path, "w") as file:
        file.writef(io.BytesIO(table("posts", question(1), answer(2, 1))), "x" * len(name))
        file.header.files_info.files[0]["filename"] = name
    with pytest.raises(InputError, match=r"a\.se\.7z.*(must stay in their folder|whole 7z archive)"):
        rows(path.parent)
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == ["a.se.7z"]


@pytest.mark.parametrize(("code", "n_bytes"), [(32, None), (33, 402_653_184), (40, 4_294_967_295)])
def test_a_dictionary_that_would_fill_the_memory_is_refused_before_anything_is_unpacked(tmp_path, code, n_bytes):
    path = tmp_path / "a.se.7z"
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_LZMA2, "preset": 0}]) as file:
        file.set_encoded_header_mode(mode=False)
        file.writestr(table("posts", question(1), answer(2, 1)).decode(), "Posts.xml")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\x21\x21\x01") + 3  # a coder of id 21, LZMA2, with one byte of properties
    data[at] = code
    offset, size = (int.from_bytes(data[i : i + 8], "little") for i in (12, 20))
    data[28:32] = crc32(data[32 + offset : 32 + offset + size]).to_bytes(4, "little")
    data[8:12] = crc32(data[12:32]).to_bytes(4, "little")
    path.write_bytes(data)
    if n_bytes is None:
        assert len(rows(tmp_path)[0]) == 1
    else:
        with pytest.raises(
            InputError, match=rf"a dictionary of 268,435,456 bytes, got one of {n_bytes:,}; pack it anew"
        ):
            rows(tmp_path)


def test_the_memory_that_coders_declare():
    lzma = bytes([0x5D]) + (2**30).to_bytes(4, "little")
    assert [archives._window(method, lzma) for method in (archives._LZMA, archives._PPMD, b"\x04\x02\x02")] == [
        2**30, 2**30, 0,
    ]  # fmt: skip
    assert [archives._window(archives._LZMA2, bytes([code])) for code in (0, 1, 24)] == [4096, 6144, 2**24]


def test_other_members_are_not_read(tmp_path):
    archive(tmp_path / "a.se.7z", Votes=b"not xml", Posts=table("posts", question(1), answer(2, 1)), Badges=b"<")
    assert len(rows(tmp_path)[0]) == 1


def test_the_order_is_by_id_as_text(tmp_path):
    for site in ("b.se", "a.se"):
        put(
            tmp_path, site, Posts=table("posts", *(post for i in (10, 9) for post in (question(i), answer(i + 100, i))))
        )
    ids = [row.id for row in rows(tmp_path)[0]]
    assert ids == sorted(ids) == ["s:a.se/10", "s:a.se/9", "s:b.se/10", "s:b.se/9"]


@pytest.mark.skipif(not ORIGIN.exists(), reason="needs ../shared/data")
def test_the_real_archives_are_read_whole():
    found, tally = rows(ORIGIN, max_post_chars=200_000)
    by_site = {site: [row for row in found if row.domain == site] for site in {row.domain for row in found}}
    beer = by_site["beer.stackexchange.com"]
    assert tally.n_read == 2206
    assert len(by_site) == 5
    assert sum(row.author is None for row in beer) == 0
    assert {row.license for row in beer} == {"CC BY-SA 3.0", "CC BY-SA 4.0", "CC BY-SA 3.0; CC BY-SA 4.0"}
    assert {row.license for row in by_site["ai.stackexchange.com"]} == {"CC BY-SA 3.0"}
    lima = next(row for row in found if row.id == "s:coffee.stackexchange.com/116")
    assert (lima.url, lima.score, lima.prompt_score) == ("https://coffee.stackexchange.com/a/140", 11, 10)
    assert not [
        row.id for row in found if any(tag in row.messages[1]["content"] for tag in ("<p>", "</li>", "&amp;amp;"))
    ]


def test_nothing_stays_open(tmp_path):
    archive(tmp_path / "a.se.7z", Posts=b"<")
    n_open = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(InputError):
            rows(tmp_path)
    assert len(list(Path("/dev/fd").iterdir())) <= n_open + 1


def test_a_bomb_in_a_member_that_is_not_read_is_refused_too(tmp_path):
    archive(tmp_path / "a.se.7z", Badges=b" " * 4_000_000, Posts=table("posts", question(1), answer(2, 1)))
    with pytest.raises(InputError, match=r"at most 200 times its size, got 4,0.*max_expansion"):
        rows(tmp_path)


def test_an_archive_of_a_table_that_no_dump_has_is_refused_not_passed_over(tmp_path):
    archive(tmp_path / "My-Site.7z", Posts=table("posts", question(1), answer(2, 1)))
    with pytest.raises(
        InputError, match=r"My-Site\.7z: must be SITE\.7z or SITE-TABLE\.7z of a dump, got table 'Site'"
    ):
        rows(tmp_path)


def test_a_question_given_twice_counts_once_and_is_told(tmp_path):
    put(tmp_path, "a.se", Posts=table("posts", question(1, "Old?"), question(1, "New?"), answer(2, 1)))
    (row,), tally = rows(tmp_path)
    assert row.title == "New?"
    assert tally.aside["questions given again"] == 1


def test_a_site_whose_name_is_no_utf8_can_be_stored(tmp_path):
    put(tmp_path, "a\udcff.se", Posts=table("posts", question(1), answer(2, 1)))
    assert rows(tmp_path)[0][0].domain == "a\ufffd.se"
