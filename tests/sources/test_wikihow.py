import csv
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import InputError
from stages.core.rows import Tally
from stages.sources import wikihow
from stages.sources.wikihow import Seen, clean_title, files, pruned, read

ORIGIN = Path(__file__).parents[2] / "../shared/data/origin/wikihow"
ALL = ("headline", "title", "text")
SEP = ("overview", "headline", "text", "sectionLabel", "title")
STEPS = ("title", "heading", "paragraph")


def put(folder, header, *lines, name="a.csv"):
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])


def rows(folder, max_post_chars=100_000):
    tally = Tally(wikihow.UNIT)
    shared = {"max_post_chars": max_post_chars, "tally": tally, "seen": Seen()}
    found = [row for path in files(folder) for row in read(path, source="w", **shared)]
    assert tally.n_read == len(found) + tally.left_out.total()
    return found, tally


def response(folder):
    (row,), _ = rows(folder)
    return row.messages[1]["content"]


def test_an_article_a_row_becomes_question_and_numbered_steps(tmp_path):
    put(tmp_path, ALL, ("\nWash it.,\nDry it", "How to Clean a Harp1", " Use water.\n\n Use a\ncloth.\n\n"))
    (row,), _ = rows(tmp_path)
    assert row.messages == [
        {"role": "user", "content": "How to Clean a Harp?"},
        {"role": "assistant", "content": "1. Wash it. Use water.\n2. Dry it. Use a cloth."},
    ]
    assert (row.id, row.group, row.domain, row.title) == (
        "w:How-to-Clean-a-Harp1",
        "wikihow",
        "wikihow",
        "How to Clean a Harp?",
    )
    assert (row.license, row.url) == ("CC BY-NC-SA 3.0", "https://www.wikihow.com/Clean-a-Harp")
    assert (row.author, row.created, row.score) == (None, None, None)  # no layout has them


def test_the_address_is_that_of_the_article_not_of_the_page_title(tmp_path):
    titles = ("3 Ways to Use Dr. Atkins' Diet - wikiHow", "How to Prepare Flax Seeds & Use Them: 9 Steps")
    put(tmp_path, STEPS, *((title, "", "Go.") for title in titles))
    assert [row.url for row in rows(tmp_path)[0]] == [
        "https://www.wikihow.com/Use-Dr.-Atkins%27-Diet",
        "https://www.wikihow.com/Prepare-Flax-Seeds-%26-Use-Them",
    ]


@pytest.mark.parametrize("layout", [STEPS, SEP])
def test_an_article_is_held_no_further_than_it_may_be_long(tmp_path, layout):
    cells = {"title": "How to Go On", "heading": "Go.", "paragraph": "x" * 200, "headline": "Go.", "text": "x" * 200}
    line = [{**cells, "overview": "", "sectionLabel": "A"}[name] for name in layout]
    short = [{**cells, "title": "How to Stop", "overview": "", "sectionLabel": "A"}[name] for name in layout]
    put(tmp_path, layout, *[line] * 20_000, short)
    tracemalloc.start()
    found, tally = rows(tmp_path, max_post_chars=2_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.title for row in found] == ["How to Stop?"]
    assert tally.left_out == {"over 2,000 characters": 1}
    assert peak < 2**20


STEP = st.tuples(st.text("a.", max_size=4), st.text("a. ", max_size=9))


@given(st.lists(STEP, min_size=1, max_size=6), st.integers(1, 80))
def test_an_article_that_is_cut_is_one_that_is_too_long(steps, max_post_chars):
    lines = [dict(zip(STEPS, ("t", *step), strict=True)) for step in steps]
    (whole,), (cut,) = (list(wikihow._steps(lines, limit)) for limit in (10**6, max_post_chars))
    if cut.sections != whole.sections:
        assert len(wikihow._response(cut)) > max_post_chars or not any(p for _, p in cut.sections[0][1])


def test_paragraphs_joined_by_commas_are_told_apart(tmp_path):
    put(tmp_path, ALL, ("\nA.,\nB.", "How to X", " one.\n\n, two.\n\n"))
    assert response(tmp_path) == "1. A. one.\n2. B. two."


def test_steps_and_paragraphs_that_do_not_pair_both_stay(tmp_path):
    put(tmp_path, ALL, ("\nA.,\nB.", "How to X", "one.\n\ntwo.\n\nthree."))
    assert response(tmp_path) == "1. A.\n2. B.\n3. one.\n4. two.\n5. three."


def test_an_opening_on_this_article_opens_the_answer(tmp_path):
    put(tmp_path, ALL, ("\nA.", "How to X", "This article explains x. Do one."))
    assert response(tmp_path) == "The following answer explains x.\n\n1. A. Do one."


def test_sections_are_headings_and_their_steps_count_anew(tmp_path):
    put(
        tmp_path,
        SEP,
        ("This wikiHow teaches you x.", "A.", "one.", "Making It", "How to X"),
        ("This wikiHow teaches you x.", "\nB", "two.", "Making It", "How to X"),
        ("This wikiHow teaches you x.", "C.", "three.", "Using It", "How to X"),
        ("This wikiHow teaches you x.", "Buy y.", "now.", "Things You'll Need", "How to X"),
        ("Y is y.", "A.", "one.", "", "How to Y"),
    )
    found, _ = rows(tmp_path)
    assert [row.messages[1]["content"] for row in found] == [
        "The following answer teaches you x.\n\n## Making It\n\n1. A. one.\n2. B. two.\n\n## Using It\n\n1. C. three.",
        "Y is y.\n\n1. A. one.",
    ]


def test_a_paragraph_that_repeats_its_heading_says_it_once(tmp_path):
    put(tmp_path, STEPS, ("3 Ways to X - wikiHow", "A.", "A. one."), ("3 Ways to X - wikiHow", "B", "two."))
    assert response(tmp_path) == "1. A. one.\n2. B. two."


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("How to X: 13 Steps (with Pictures) - wikiHow", "How to X"),
        ("How To X", "How to X"),
        ("3 Simple Ways to X", "How to X"),
        ("Easy Ways to X", "How to X"),
        ("How to Convert Wma to Mp3", "How to Convert Wma to Mp3"),
        ("How to Solve an x12", "How to Solve an x12"),
        ("How to Use a PS4", "How to Use a PS4"),
        ("How to Use Windows 10", "How to Use Windows 10"),
        ("How to Sing (Well)2", "How to Sing (Well)"),
        ("How to Play Halo: Reach", "How to Play Halo: Reach"),
        ("Bras for Men", "Bras for Men"),
    ],
)
def test_titles_become_those_of_the_article(title, expected):
    assert clean_title(title) == expected


def test_a_subtitle_of_a_scraped_page_goes():
    assert clean_title("How to Harvest Olives: Timing & Curing", is_page_title=True) == "How to Harvest Olives"


def test_images_and_citations_are_pruned_and_other_brackets_stay():
    image = ' {"smallUrl":"https:\\/\\/a","licensing":"<div class=\\"b\\"><\\/div>","n":{"m":1}}'
    expert = "[3] X Expert Source Jo Li, MD Doctor Expert Interview. 1 May 2020."
    text = f"Tap{image}. Go{image}.[12] X Research source Add [[1]] and [2].{expert} End."
    assert pruned(text) == "Tap. Go. Add [[1]] and [2]. End."
    assert pruned('cut {"smallUrl":"https') == 'cut {"smallUrl":"https'
    assert pruned("a[5] X Trustworthy Source Mayo Clinic Leading hospital Go to source b") == "a b"


def test_what_is_no_how_to_or_has_no_text_is_left_out_and_counted(tmp_path):
    put(
        tmp_path,
        ALL,
        ("\nA.", "Why Is It?", "one."),
        ("\nA.", "How to X", ""),
        ("\nA.", "How to Y", "one."),
        ("\nA.", "How to Y", "again."),
        ("\nA.", "How to Z", "x" * 100_000),
        ("\nA.", "How to " + "x" * 500, "one."),
    )
    found, tally = rows(tmp_path)
    assert [row.title for row in found] == ["How to Y?"]
    assert tally.left_out == {
        "that are no how-to": 1,
        "without text": 1,
        "with a title seen before": 1,
        "over 100,000 characters": 1,
        "with a title over 500 characters": 1,
    }


def test_columns_beyond_the_layout_fill_provenance(tmp_path):
    put(tmp_path, (*ALL, "category", "url"), ("\nA.", "How to X", "one.", "Travel", "http://w/X"))
    (row,), _ = rows(tmp_path)
    assert (row.domain, row.url) == ("Travel", "http://w/X")


def test_a_prompt_that_ends_with_a_question_mark_gets_no_second(tmp_path):
    put(tmp_path, ALL, ("\nA.", "How to Ask Why?", "one."))
    assert rows(tmp_path)[0][0].messages[0]["content"] == "How to Ask Why?"


def test_unknown_columns_are_an_error_that_names_the_layouts(tmp_path):
    put(tmp_path, ("question", "answer"), ("a", "b"))
    with pytest.raises(
        InputError, match=r"a\.csv: must have the columns overview.*or title, heading, paragraph, got question, answer"
    ):
        rows(tmp_path)


@pytest.mark.skipif(not ORIGIN.exists(), reason="needs ../shared/data")
def test_the_real_articles_are_questions_with_numbered_steps():
    found, tally = rows(ORIGIN, max_post_chars=200_000)
    assert (tally.n_read, len(found)) == (223, 211)
    for row in found:
        prompt, text = (turn["content"] for turn in row.messages)
        assert prompt.startswith("How to ")
        assert prompt.endswith("?")
        assert text.startswith("1. ")
        assert not any(dirt in text for dirt in ("smallUrl", "X Research source", "X Expert Source", "Go to source"))


def test_an_empty_copy_of_an_article_does_not_displace_the_good_one(tmp_path):
    put(tmp_path, ALL, ("\nA.", "How to X", ""), ("\nA.", "How to  X", "one."), ("\nA.", "How to X", "again."))
    found, tally = rows(tmp_path)
    assert [row.messages[1]["content"] for row in found] == ["1. A. one."]
    assert tally.left_out == {"without text": 1, "with a title seen before": 1}


def test_titles_of_the_same_words_are_two_articles(tmp_path):
    put(tmp_path, ALL, *(("\nA.", f"How to Print in C{end}", "one.") for end in ("", "++", "#")))
    assert [row.id for row in rows(tmp_path)[0]] == [f"w:How-to-Print-in-C{end}" for end in ("", "-2", "-3")]


@pytest.mark.parametrize("gap", [" ", "\n", " \n"])
def test_time_is_linear_in_white_space(gap):
    start = time.process_time()
    assert pruned(f"a{gap * 50_000}b") == "a b"
    assert time.process_time() - start < 1  # quadratic: many seconds
