from xml.parsers import expat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.xml_rows import (
    COMMENTS,
    MAX_DIGITS,
    POSTS,
    USERS,
    Irregular,
    attributes,
    from_text_order,
    scan,
    some_attributes,
    text_order,
    unescaped,
)

QUESTION = b'  <row Id="1" PostTypeId="1" AcceptedAnswerId="2" CreationDate="d" Score="-3" ViewCount="9" Body="b" />'
ANSWER = b'  <row Id="2" PostTypeId="2" ParentId="1" CreationDate="d" Score="12" Body="b" />'
SWAPPED = b'  <row Score="12" ParentId="1" Body="Id=" PostTypeId="2" Id="2"/>'


def test_the_places_and_integers_of_rows():
    lines = b"\r\n".join((QUESTION, ANSWER, SWAPPED, b""))
    a, b = len(QUESTION) + 2, len(QUESTION) + len(ANSWER) + 4
    assert list(scan(lines, POSTS)) == [
        ((b"1", b"1", None, b"-3"), 0, a),
        ((b"2", b"2", b"1", b"12"), a, b),
        ((b"2", b"2", b"1", b"12"), b, len(lines)),
    ]


def test_an_answer_whose_parent_comes_late_is_an_answer():
    row = b'<row Id="2" PostTypeId="2" CreationDate="d" Score="1" Body="b" ParentId="7" />\n'
    assert [values for values, _, _ in scan(row, POSTS)] == [(b"2", b"2", b"7", b"1")]


def test_users_and_comments():
    user = b'<row Id="-1" Reputation="1" CreationDate="d" DisplayName="A &amp; B" Views="0" />\n'
    comment = b'<row Id="5" PostId="2" Score="0" Text="x UserId=" CreationDate="d" UserId="7" ContentLicense="c" />\n'
    nobody = b'<row Id="5" PostId="2" Score="0" Text="x" CreationDate="d" UserDisplayName="u" />\n'
    assert [values for values, _, _ in scan(user, USERS)] == [(b"-1", b"A &amp; B")]
    assert [values for values, _, _ in scan(comment + nobody, COMMENTS)] == [(b"5", b"2", b"7"), (b"5", b"2", None)]


@pytest.mark.parametrize(
    "lines", [QUESTION, QUESTION + b"\n" + ANSWER + b"\r\n", QUESTION + b"\n\n", QUESTION + b" \n"]
)
def test_lines_that_end_otherwise_are_irregular(lines):
    with pytest.raises(Irregular, match="end with its line"):
        list(scan(lines, POSTS))


def test_some_attributes_come_in_the_order_asked_for():
    assert some_attributes(QUESTION, ("Body", "Title", "Score")) == (("Body", "Score"), [b"b", b"-3"])


names = st.sampled_from(["Id", "Body", "Title", "x_1"])
values = st.text(st.characters(exclude_categories=("Cs",), exclude_characters='<&"'), max_size=8)
references = st.sampled_from(
    ["&lt;", "&gt;", "&amp;", "&quot;", "&apos;", "&#xA;", "&#xD;", "&#x9;", "&#233;", "&#x1F600;"]
)


@given(st.dictionaries(names, st.lists(values | references).map("".join), min_size=1))
def test_a_row_is_read_as_by_an_xml_parser_or_is_irregular(fields):
    row = f"  <row{''.join(f' {name}={chr(34)}{value}{chr(34)}' for name, value in fields.items())} />\n".encode()
    parser, found = expat.ParserCreate(), []
    parser.StartElementHandler = lambda _, attributes: found.append(attributes)
    try:
        list(scan(row, USERS))
        read = attributes(row)
        texts = unescaped(list(read.values()))
    except Irregular:
        return
    parser.Parse(row, True)
    assert dict(zip(read, texts, strict=True)) == found[0]


@given(
    st.lists(values | references | st.sampled_from(["&", "&x;", "&#0;", "&#xFFFE;", "&lt", "&#55296;"])).map("".join)
)
def test_a_reference_is_irregular_where_an_xml_parser_refuses_it(value):
    try:
        expat.ParserCreate().Parse(f'<row a="{value}"/>'.encode(), True)
        known = True
    except expat.ExpatError:
        known = False
    if known:
        unescaped([value.encode()])
    elif value.isprintable():  # control characters are for `scan` to find
        with pytest.raises(Irregular):
            unescaped([value.encode()])


@given(st.lists(st.integers(1, 10**MAX_DIGITS - 1), min_size=1))
def test_the_order_of_ids_as_texts(ids):
    keys = text_order(np.array(ids, np.int64))
    assert [ids[i] for i in np.argsort(keys, kind="stable")] == sorted(ids, key=str)
    assert from_text_order(keys).tolist() == ids
