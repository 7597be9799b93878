import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.comment_threads import clean_comment, follow_up, is_meant
from stages.core.posts import Site, Thread, candidate, dialogue

ASKER, ANSWERER = ("1", "Ann Lee"), ("2", "Bo")


def talk(*comments):
    return [(turn.role[0], turn.content) for turn in follow_up(comments, asker=ASKER, answerer=ANSWERER)]


def test_asker_and_answerer_in_turn():
    assert talk(("1", "@Bo: why?"), ("2", "@AnnLee because."), ("1", "And then?"), ("2", "Then *that*.")) == [
        ("u", "why?"), ("a", "because."), ("u", "And then?"), ("a", "Then that."),
    ]  # fmt: skip


def test_comments_in_a_row_are_one_turn():
    turns = follow_up([("1", "a"), ("1", "b"), ("2", "c"), ("2", "d")], asker=ASKER, answerer=ANSWERER)
    assert [(turn.content, turn.comments) for turn in turns] == [("a\n\nb", (0, 1)), ("c\n\nd", (2, 3))]


def test_an_asker_has_not_the_last_word():
    assert talk(("1", "a"), ("2", "b"), ("1", "thanks")) == [("u", "a"), ("a", "b")]
    assert talk(("1", "thanks")) == []
    assert talk() == []


def test_what_the_answerer_adds_before_is_passed_over():
    assert talk(("2", "PS"), ("1", "a"), ("2", "b")) == [("u", "a"), ("a", "b")]


@pytest.mark.parametrize(
    "other", [("3", "x"), (None, "x"), ("1", "@Carl hm"), ("2", "@Carl hm"), ("1", "@Bo"), ("1", "x" * 2001)]
)
def test_it_ends_before_somebody_else_or_nothing(other):
    assert talk(("1", "a"), ("2", "b"), other, ("1", "c"), ("2", "d")) == [("u", "a"), ("a", "b")]


def test_nobody_talks_to_themselves():
    assert follow_up([("1", "a"), ("1", "b")], asker=ASKER, answerer=ASKER) == []


@pytest.mark.parametrize(
    ("mention", "name", "meant"),
    [("AnnLee", "Ann Lee", True), ("ann", "Ann Lee", True), ("an", "Ann Lee", False), ("bo", "Bo", True),
     ("lee", "Ann Lee", False), ("x", None, True)],
)  # fmt: skip
def test_a_mention_is_a_name_without_spaces_or_its_beginning(mention, name, meant):
    assert is_meant(mention, name) is meant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@Bo, yes", "yes"),
        ("mail a@b.org", "mail a@b.org"),
        ("[a **b**](http://x.y/z_(w)) c", "a b c"),
        ("_so_ *it* is", "so it is"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ("`a *b* _c_` *d*", "`a *b* _c_` d"),
        ("$a_1 * b_2$ and $c_1$", "$a_1 * b_2$ and $c_1$"),
        ("a\n b", "a b"),
    ],
)
def test_a_comment_becomes_bare_text(text, expected):
    assert clean_comment(text) == expected


@given(
    st.lists(st.tuples(st.sampled_from(["1", "2", "3", None]), st.sampled_from(["a", "@Bo", "@x y", ""])), max_size=9)
)
def test_turns_alternate_begin_with_the_user_and_end_with_the_assistant(comments):
    roles = [role for role, _ in talk(*comments)]
    assert roles == ["u", "a"] * (len(roles) // 2)


def test_a_dialogue_keeps_the_provenance_of_all_its_parts():
    thread = Thread(
        "7",
        {"Title": "T?", "Body": "<p>B</p>", "Score": "3", "OwnerUserId": "1", "ContentLicense": "CC BY-SA 3.0"},
        {"Id": "8", "Body": "<p>A</p>", "Score": "5", "OwnerUserId": "2", "CreationDate": "2018-01-01T"},
        "Ann",
        "Bo",
        (
            {"Id": "1", "Text": "why?", "UserId": "1", "CreationDate": "2018-02-01T", "ContentLicense": "CC BY-SA 4.0"},
            {"Id": "2", "Text": "so.", "UserId": "2", "CreationDate": "2019-03-04T", "ContentLicense": "CC BY-SA 4.0"},
        ),
    )
    row = candidate(thread, Site("a.se", "g", "s"), max_post_chars=99)
    further = dialogue(row, thread)
    assert (further.id, further.group, further.domain) == ("s:a.se/7/comments", "stack_exchange_dialogue", "a.se")
    assert [message["content"] for message in further.messages] == ["T?\n\nB", "A", "why?", "so."]
    assert (further.author, further.license) == ("Bo; Ann", "CC BY-SA 3.0; CC BY-SA 4.0")
    assert (further.created, further.url, further.score) == ("2019-03-04", "https://a.se/a/8#comments", 5)
    assert dialogue(row, thread._replace(comments=thread.comments[:1])) is None
