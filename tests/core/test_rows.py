from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.rows import Candidate, Prompt, Tally, paragraphs, storable, storable_value, turns
from stages.schema import CANDIDATE, PROMPT


def test_fields_are_the_columns_of_the_schema_in_order():
    assert Candidate._fields == tuple(CANDIDATE)
    assert Prompt._fields == tuple(PROMPT)


def test_turns_await_a_response_or_hold_one():
    assert [turn["role"] for turn in turns("q")] == ["user"]
    assert turns("q", "a")[1] == {"role": "assistant", "content": "a"}


def test_paragraphs_leave_out_what_is_empty():
    assert paragraphs(" a ", None, "", " \n", "b") == "a\n\nb"
    assert paragraphs() == ""


def test_a_tally_names_what_was_left_out_and_what_was_not_counted():
    tally = Tally("posts", 1234, Counter({"b": 3, "a": 1, "c": 0}), Counter({"orphans": 2}), ["no users"])
    line = tally.line(n_candidates=1200, n_prompts=30)
    assert line == "1,200 rows and 30 prompts of 1,234 posts; left out: 1 a, 3 b; besides: 2 orphans; no users"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_storable_text_can_be_stored_and_changes_nothing_else(text):
    stored = storable(text)
    assert stored.encode().decode() == stored
    assert all(a == b or "\ud800" <= a <= "\udfff" for a, b in zip(text, stored, strict=True))


def test_storable_values_are_storable_all_through():
    assert storable_value({"\ud800": ["\ud800", {"a": "\ud800"}, 1, None, True]}) == {
        "\ufffd": ["\ufffd", {"a": "\ufffd"}, 1, None, True]
    }
