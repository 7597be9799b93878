"""The protocol without a network: every answer to a request, and what follows from it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.transfer import (
    Again,
    Append,
    Have,
    Refused,
    Whole,
    cut_off,
    length,
    pause_s,
    request_headers,
    step,
    validator,
    wrong_kind,
)

NOTHING = Have(0, "")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HALF = Have(50, '"v1"')


@pytest.mark.parametrize(
    ("desc", "status", "headers", "have", "expected"),
    [
        ("a whole file", 200, {"content-length": "100", "etag": '"v1"'}, NOTHING, Append(0, 100, '"v1"')),
        ("Range ignored", 200, {"content-length": "100", "etag": '"v1"'}, HALF, Append(0, 100, '"v1"')),
        ("another version, by If-Range", 200, {"content-length": "90", "etag": '"v2"'}, HALF, Append(0, 90, '"v2"')),
        ("no length", 200, {}, NOTHING, Append(0, None, "", is_framed=False)),
        ("chunked", 200, {"transfer-encoding": "chunked"}, NOTHING, Append(0, None, "")),
        ("chunked wins over a length", 200, {"transfer-encoding": "Chunked", "content-length": "5"}, NOTHING,
         Append(0, None, "")),
        ("a length that is none", 200, {"content-length": "-5"}, NOTHING, Append(0, None, "", is_framed=False)),
        ("the rest", 206, {"content-range": "bytes 50-99/100", "etag": '"v1"'}, HALF, Append(50, 100, '"v1"')),
        ("the rest, unnamed version", 206, {"content-range": "bytes 50-99/100"}, HALF, Append(50, 100, '"v1"')),
        ("the rest of who knows what", 206, {"content-range": "bytes 50-99/*"}, HALF,
         Append(50, None, '"v1"', is_framed=False)),
        ("part of the rest", 206, {"content-range": "bytes 50-59/100"}, HALF, Append(50, 100, '"v1"')),
        ("nothing is missing", 416, {"content-range": "bytes */50"}, HALF, Whole()),
    ],
)  # fmt: skip
def test_what_to_write(desc, status, headers, have, expected):
    assert step(status, headers, have, now=NOW) == expected, desc


@pytest.mark.parametrize(
    ("status", "headers", "have"),
    [
        (206, {"content-range": "bytes 49-99/100"}, HALF),
        (206, {"content-range": "bytes 51-99/100"}, HALF),
        (206, {}, HALF),
        (206, {"content-range": "50-99/100"}, HALF),
        (206, {"content-range": "bytes */100"}, HALF),
        (206, {"content-range": "bytes 0-99/100"}, NOTHING),  # unasked
        (206, {"content-range": "bytes 50-99/100", "etag": '"v2"'}, HALF),
        (206, {"content-range": "bytes 50-99/100", "etag": 'W/"v1"'}, HALF),
        (206, {"content-range": "bytes 50-99/100", "last-modified": "B"}, Have(50, "A")),
        (412, {}, HALF),
        (416, {}, HALF),
        (416, {"content-range": "bytes */49"}, HALF),
        (416, {"content-range": "bytes */50", "etag": '"v2"'}, HALF),
    ],
)
def test_another_part_or_version_begins_anew(status, headers, have):
    todo = step(status, headers, have, now=NOW)
    assert isinstance(todo, Again)
    assert todo.from_start


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_passing_faults_are_asked_again_and_lose_nothing(status):
    assert step(status, {}, HALF, now=NOW) == Again(f"answers {status}")
    assert step(status, {"retry-after": "7"}, HALF, now=NOW) == Again(f"answers {status}", 7.0)


@pytest.mark.parametrize(("wait", "kind"), [("600", Again), ("601", Refused), ("inf", Again), ("1e9", Refused)])
def test_a_pause_beyond_ten_minutes_is_refused(wait, kind):
    assert isinstance(step(503, {"retry-after": wait}, NOTHING, now=NOW), kind)


@pytest.mark.parametrize(
    ("status", "gone"),
    [(404, True), (410, True), (400, False), (401, False), (403, False), (407, False), (418, False), (304, False),
     (204, False), (100, False), (505, False)],
)  # fmt: skip
def test_lasting_faults_are_refused_and_say_what_helps(status, gone):
    todo = step(status, {}, HALF, now=NOW)
    assert isinstance(todo, Refused)
    assert (todo.gone, str(status) in todo.why, bool(todo.remedy)) == (gone, True, True)


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["content-length", "content-range", "etag", "last-modified", "retry-after", "transfer-encoding",
                         "content-encoding"]),
        st.text(st.characters(max_codepoint=126), max_size=30)
        | st.sampled_from(["bytes 5-9/10", "bytes */5", '"v"', "5"]),
    ),
    st.integers(0, 10),
    st.sampled_from(["", '"v"', "Tue, 02 Apr 2024 08:32:00 GMT"]),
)  # fmt: skip
def test_any_answer_is_understood_and_none_appends_elsewhere(status, headers, n_bytes, known):
    """No gap, no overlap: what is written begins at 0 or where the beginning ends."""
    todo = step(status, headers, Have(n_bytes, known), now=NOW)
    if isinstance(todo, Append):
        assert todo.offset in (0, n_bytes)
        assert status in (200, 206)
        assert not todo.offset or todo.validator == known
    if isinstance(todo, Whole):
        assert n_bytes > 0


def test_a_range_is_asked_for_of_the_version_that_the_beginning_is_of():
    assert request_headers(NOTHING) == {"Accept-Encoding": "identity"}
    assert request_headers(Have(5, "")) == {"Accept-Encoding": "identity", "Range": "bytes=5-"}
    assert request_headers(Have(5, "a date"))["If-Range"] == "a date"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ""),
        ({"etag": '"a"', "last-modified": "d"}, '"a"'),
        ({"etag": 'W/"a"', "last-modified": "d"}, "d"),
        ({"etag": "a", "last-modified": "d"}, "d"),
        ({"etag": '"a\r\nX: 1"'}, ""),
    ],
)
def test_only_strong_validators_name_a_version(headers, expected):
    assert validator(headers) == expected


def test_pauses_grow_to_a_minute_and_no_further():
    pauses = [pause_s(attempt) for attempt in range(1, 100)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0


def test_lengths():
    assert [length({"content-length": text}) for text in ("0", "12", "1e3", "+1", "", "9" * 19)] == [
        0, 12, None, None, None, None,
    ]  # fmt: skip
    assert length({}) is None


SEVEN = b"7z\xbc\xaf\x27\x1c"


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.7z", SEVEN + b"rest", None),
        ("a.7z", b"7", None),  # may become one
        ("a.7z", b"", None),
        ("a.7z", b"PK\x03\x04", "no 7z file"),
        ("a.7z", b"<HTML><body>", "a web page"),
        ("a.zst", b"\x28\xb5\x2f\xfd", None),
        ("a.zst", b"\x50\x2a\x4d\x18", None),  # a skippable frame first
        ("a.zst", b"BZh9", "no zst file"),
        ("a.csv", b"title,text", None),
        ("a.csv", b"<title>,x", None),
        ("a.csv", b"\xef\xbb\xbf <!DOCTYPE html>", "a web page"),
        ("a.json", b"\x1f\x8b\x08", "a packed file"),
        ("Posts.xml", b"<?xml version='1.0'?><posts>", None),
        ("a.7Z", b"none", "no 7Z file"),
    ],
)
def test_kinds_by_first_bytes(name, head, expected):
    if name == "a.7Z":
        expected = "no 7z file"
    assert wrong_kind(name, head) == expected


def header(offset: int, size: int) -> bytes:
    return SEVEN + bytes(6) + offset.to_bytes(8, "little") + size.to_bytes(8, "little") + bytes(4)


@pytest.mark.parametrize(
    ("name", "head", "tail", "n_bytes", "is_cut"),
    [
        ("a.7z", header(100, 20), b"", 152, False),
        ("a.7z", header(100, 20), b"", 151, True),
        ("a.7z", header(100, 20), b"", 153, False),  # signed behind its end
        ("a.7z", SEVEN, b"", 6, True),
        ("a.json", b"{", b"...]}\n ", 9, False),
        ("a.json", b"{", b'..."out', 9, True),
        ("a.csv", b"a,b", b"1,2", 9, False),
        ("a.csv", b"", b"", 0, True),
    ],
)
def test_a_file_that_says_how_it_ends_is_held_to_it(name, head, tail, n_bytes, is_cut):
    assert (cut_off(name, head, tail, n_bytes) is not None) == is_cut
