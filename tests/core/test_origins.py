import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from stages.core.origins import bucket_and_key, checked, is_address, joined, redacted


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("miniature", "miniature"),
        ("/mnt/dumps/", "/mnt/dumps/"),
        ("a//b", "a//b"),
        ("HTTPS://Host/Path", "https://Host/Path"),
        ("https://host", "https://host"),
        ("https://host:8080/a/", "https://host:8080/a"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("s3://bucket", "s3://bucket"),
        ("s3://my.bucket-1//a//b/", "s3://my.bucket-1/a/b"),
    ],
)
def test_an_origin_is_kept_but_for_idle_slashes(origin, expected):
    assert checked(origin) == expected
    assert checked(expected) == expected


@pytest.mark.parametrize(
    "origin",
    ["https://u:pw12@h/x", "https://pw12@h", "s3://key:pw12@b/x", "https://h/x?pw12", "ftp://u:pw12@h"],
)
def test_a_secret_is_refused_unseen(origin):
    with pytest.raises(PydanticCustomError) as caught:
        checked(origin)
    assert "pw12" not in str(caught.value)


def test_a_windows_drive_is_a_folder():
    assert not is_address("C:\\dumps")
    assert not is_address("c:/dumps")


PLAIN = st.characters(exclude_characters="/@?#'\"()<>", min_codepoint=33, max_codepoint=126)


@given(st.text(PLAIN, min_size=1), st.text(PLAIN, min_size=1))
def test_no_text_shows_what_stands_before_an_at_or_behind_a_question_mark(user, query):
    told = redacted(f"no answer from https://{user}:{user}@host/a?{query} (it is down)")
    assert told == "no answer from https://[hidden]@host/a?[hidden] (it is down)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTPConnectionPool(host='h', port=80): Max retries exceeded with url: /a?sig=1f (Caused by x)",
         "HTTPConnectionPool(host='h', port=80): Max retries exceeded with url: /a?[hidden] (Caused by x)"),
        ("https://u@h/a and https://v:w@g/b", "https://[hidden]@h/a and https://[hidden]@g/b"),
        ("what? mail ann@host.org", "what? mail ann@host.org"),
        ("https://host/a@b", "https://host/a@b"),
    ],
)  # fmt: skip
def test_only_what_may_be_secret_is_hidden(text, expected):
    assert redacted(text) == expected


def test_names_are_escaped_in_urls_and_not_in_keys():
    assert joined("https://h/a", "b/c d#?%.csv") == "https://h/a/b/c%20d%23%3F%25.csv"
    assert joined("s3://b/a", "b/c d#?%.csv") == "s3://b/a/b/c d#?%.csv"
    assert bucket_and_key(joined("s3://b", "x.csv")) == ("b", "x.csv")
