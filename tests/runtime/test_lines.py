import csv
import io

import pytest

from stages.common.errors import InputError
from stages.runtime import lines
from stages.runtime.lines import csv_header, csv_rows, json_rows


def write(tmp_path, data):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    return path


def test_csv_fields_may_hold_line_breaks_and_the_file_a_byte_order_mark(tmp_path):
    path = write(tmp_path, b'\xef\xbb\xbfa,b\r\n1,"two\nlines"\r\n\r\n3,"say ""x"""\r\n')
    assert list(csv_rows(path)) == [(3, {"a": "1", "b": "two\nlines"}), (5, {"a": "3", "b": 'say "x"'})]
    assert csv_header(path) == ("a", "b")


def test_csv_without_rows_has_none(tmp_path):
    assert list(csv_rows(write(tmp_path, b"a,b\n"))) == []
    assert csv_header(write(tmp_path, b"")) == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n1,2\n3\n", r"line 3: must have 2 fields as the header, got 1"),
        (b'a,b\n1,"2\n', r"line 3?2?: must be CSV"),
        (b"a,b\n1,\xff\n", r"must be UTF-8"),
        (b"a,b,a\n1,2,3\n", r"must name each column once, got 'a' twice"),
    ],
)
def test_csv_faults_name_file_and_line(tmp_path, data, message):
    with pytest.raises(InputError, match=rf"a\.csv.*{message}"):
        list(csv_rows(write(tmp_path, data)))


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_CHARS", 100)
    with pytest.raises(InputError, match=r"at most 100 characters"):
        list(csv_rows(write(tmp_path, b"a\n" + b"x" * 101)))
    with pytest.raises(InputError, match=r"b, line 1: must have at most 100 bytes"):
        list(json_rows(io.BytesIO(b"x" * 101), "b"))
    assert len(list(json_rows(io.BytesIO(b'{"a":"' + b"x" * 91 + b'"}\n'), "b"))) == 1


def test_json_rows_pass_over_lines_that_mention_nothing():
    data = b'{"s":"one"}\n\nnot json\n{"s":"two"}'
    assert list(json_rows(io.BytesIO(data), "b", mentions=[b"one", b"two"])) == [(1, {"s": "one"}), (4, {"s": "two"})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "must be JSON"),
        (b"[1]", "object, got list"),
        (b"[" * 100_000, "must be JSON"),
        (b'{"a":"\xff"}', "must be JSON"),
    ],
)
def test_json_faults_name_file_and_line(line, message):
    with pytest.raises(InputError, match=rf"b, line 2: .*{message}"):
        list(json_rows(io.BytesIO(b"{}\n" + line), "b"))


def test_a_header_of_another_kind_of_file_is_read_or_refused_in_one_sentence(tmp_path):
    csv.field_size_limit(131_072)
    assert csv_header(write(tmp_path, b"x" * 200_000)) == ("x" * 200_000,)
    with pytest.raises(InputError, match=r"a\.csv, line 1: must be CSV"):
        csv_header(write(tmp_path, b'"a"b,c\n'))
