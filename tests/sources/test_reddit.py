import csv
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard

from stages.common.errors import InputError
from stages.core.rows import Candidate, Prompt, Tally
from stages.sources import reddit
from stages.sources.reddit import files, gather, join, tell_missing

ORIGIN = Path(__file__).parents[2] / "../shared/data/origin/reddit"


def submission(id_="a1", title="[WP] A door.", **more):
    return {
        "id": id_,
        "subreddit": "WritingPrompts",
        "title": title,
        "selftext": "",
        "score": 5,
        "is_self": True,
        "over_18": False,
        "author": "ann",
        "created_utc": 1376577414,
    } | more


def comment(id_="c1", parent="t3_a1", **more):
    return {
        "id": id_,
        "link_id": "t3_a1",
        "parent_id": parent,
        "subreddit": "WritingPrompts",
        "body": "Once.",
        "score": 3,
        "author": "bo",
        "created_utc": "1376577500",
        "stickied": False,
        "distinguished": None,
    } | more


def zst(path, *lines, window_log=20):
    data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    params = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log)
    compressor = zstandard.ZstdCompressor(compression_params=params).compressobj()
    path.write_bytes(compressor.compress(data) + compressor.flush())


def rows(folder, max_post_chars=1000, max_expansion=200):
    tally = Tally(reddit.UNIT)
    n_comments = 0
    with TemporaryDirectory() as work:
        outs = []
        for path in files(folder):
            outs.append(Path(work, str(len(outs))))
            held = gather(path, outs[-1], max_post_chars=max_post_chars, max_expansion=max_expansion)
            n_comments += held.n_comments
            tally.aside.update(held.aside)
        found = list(join(outs, source="r", max_post_chars=max_post_chars, tally=tally))
    tell_missing(tally, n_comments)
    assert tally.n_read == len(found) + tally.left_out.total()
    return found, tally


def test_a_story_is_joined_to_its_prompt_in_any_order_of_files(tmp_path):
    zst(tmp_path / "RC_1.zst", comment(permalink="/x"))
    zst(tmp_path / "RS_1.zst", submission(title="[WP]  [EU] A [red] door &amp; you.", selftext="More."))
    (row,), _ = rows(tmp_path)
    assert isinstance(row, Candidate)
    assert row == Candidate(
        id="r:a1",
        source="r",
        domain="WritingPrompts",
        group="writing_prompts",
        score=3,
        messages=[
            {"role": "user", "content": "A [red] door & you.\n\nMore."},
            {"role": "assistant", "content": "Once."},
        ],
        url="https://www.reddit.com/r/WritingPrompts/comments/a1/_/c1/",
        author="bo",
        license=None,
        created="2013-08-15",
        title="A [red] door & you.",
        body="More.",
        over_18=False,
        prompt_score=5,
    )


def test_the_story_is_the_highest_scored_top_level_comment_of_a_person(tmp_path):
    zst(
        tmp_path / "all.zst",
        submission(),
        comment("c1", score=9, body="nine"),
        comment("c2", score=12, body="twelve"),
        comment("bz", score=12, body="first"),
        comment("c3", score=99, parent="t1_c1"),
        comment("c4", score=99, author="AutoModerator"),
        comment("c5", score=99, author="WritingPromptsBot"),
        comment("c6", score=99, stickied=True),
        comment("c7", score=99, distinguished="moderator"),
        comment("c8", score=99, body="[deleted]"),
        comment("c9", score=99, body="[removed]"),
        comment("ca", score=99, body="x" * 1001),
        comment("cb", score=99, subreddit="AskReddit"),
    )
    found, tally = rows(tmp_path)
    assert found[0].messages[1]["content"] == "first"  # bz < c2 in base 36
    assert tally.aside == {
        "comments by a bot or moderator": 4,
        "comments deleted or removed": 2,
        "comments over 1,000 characters": 1,
    }


def test_titles_that_need_no_body_become_prompts(tmp_path):
    ask = {"subreddit": "AskReddit", "title": "[Serious] What now?", "over_18": True, "score": 70}
    zst(tmp_path / "RS.zst", submission("z1", **ask), submission("z2", **ask | {"selftext": "Because."}))
    (row,), tally = rows(tmp_path)
    assert row == Prompt(
        id="r:z1",
        split=None,
        source="r",
        group="ask_reddit",
        domain="AskReddit",
        messages=[{"role": "user", "content": "What now?"}],
        score=70,
        over_18=True,
        url="https://www.reddit.com/r/AskReddit/comments/z1/",
        author="ann",
        created="2013-08-15",
    )
    assert tally.left_out == {"of r/AskReddit with a body": 1}


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path):
    zst(
        tmp_path / "RS.zst",
        submission("a1"),
        submission("a2", selftext="[deleted]"),
        submission("a3", title="[removed]"),
        submission("a4", title="[OT] Chat"),
        submission("a5", is_self=False),
        submission("a6", distinguished="moderator"),
        submission("a7", selftext="x" * 1000),
        submission("a8", title="[WP]"),
        submission("x", subreddit="pics"),
        comment("c8", parent="t3_a8"),
    )
    found, tally = rows(tmp_path)
    assert found == []
    assert tally.left_out == {
        "of r/WritingPrompts without a story": 1,
        "deleted or removed": 2,
        "of r/WritingPrompts that are no prompt": 3,
        "over 1,000 characters": 1,
        "without text": 1,
    }
    assert tally.notes == []


def test_submissions_alone_are_told_not_to_give_examples(tmp_path):
    with (tmp_path / "wp.csv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["id", "title", "selftext", "score", "over_18", "is_self", "permalink", "created_utc"]
        )
        writer.writeheader()
        row = {"selftext": "", "score": "5", "is_self": "True", "created_utc": "1335842178.0"}
        writer.writerow(
            row | {"id": "a1", "title": "A door", "over_18": "False", "permalink": "http://r.com/r/WritingPrompts/c/a1"}
        )
        writer.writerow(row | {"id": "a2", "title": "Why?", "over_18": "True", "permalink": "/r/AskReddit/c/a2"})
        writer.writerow(row | {"id": "a3", "title": "Cat", "over_18": "", "permalink": "/r/pics/c/a3"})
    found, tally = rows(tmp_path)
    assert [(row.id, row.over_18, row.created) for row in found] == [("r:a2", True, "2012-05-01")]
    assert tally.notes == ["no file holds comments of r/WritingPrompts, so it gives no examples"]


def test_markdown_loses_links_and_entities_once():
    text = 'A &lt;b&gt; [link](http://a.b/c_(d) "t") ![pic](u) [x] (y) &amp;amp; &amp;#x200B;end'
    assert reddit._markdown(text) == "A <b> link  [x] (y) &amp; end"


@pytest.mark.parametrize(
    ("author", "is_bot"),
    [
        *dict.fromkeys(
            ("AutoModerator", "automoderator", "WritingPromptsBot", "haiku_bot", "Image-Linker-BOT"), True
        ).items(),
        *dict.fromkeys(("RemindMeBOT", "Bot", "R2Bot", "sneakpeekbot", "xkcd1bot"), True).items(),
        *dict.fromkeys(("Talbot", "abbot", "ABBOT", "bothy", "Robotic", "Cabot", "Bot_fan"), False).items(),
    ],
)
def test_a_bot_is_known_by_how_its_name_ends_and_no_person_for_that(tmp_path, author, is_bot):
    zst(tmp_path / "all.zst", submission(), comment("c1", score=9, author=author), comment("c2", body="two"))
    assert (rows(tmp_path)[0][0].messages[1]["content"] == "two") == is_bot


def test_a_window_beyond_the_default_limit_is_read(tmp_path):
    zst(tmp_path / "RS.zst", submission(), window_log=28)
    assert rows(tmp_path)[1].n_read == 1


def test_a_file_out_of_proportion_is_refused_while_it_unpacks(tmp_path):
    zst(tmp_path / "RS.zst", submission(selftext="a" * 4_000_000))
    with pytest.raises(
        InputError, match=r"RS\.zst: must unpack to at most 200 times its size, got more.*max_expansion"
    ):
        rows(tmp_path)
    assert rows(tmp_path, max_expansion=10**6)[1].n_read == 1


def test_deleted_authors_are_unknown(tmp_path):
    zst(tmp_path / "a.zst", submission(), comment(author="[deleted]"))
    assert rows(tmp_path)[0][0].author is None


def test_lone_surrogates_become_storable(tmp_path):
    zst(tmp_path / "a.zst", submission(title="\ud83d x"), comment())
    assert rows(tmp_path)[0][0].title == "\ufffd x"


def test_a_truncated_or_foreign_file_is_one_sentence(tmp_path):
    zst(tmp_path / "RS.zst", *(submission(f"a{i}", title="x" * 50 + str(i * 7919)) for i in range(2000)))
    whole = (tmp_path / "RS.zst").read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-1], b"", b"garbage"):
        (tmp_path / "RS.zst").write_bytes(data)
        with pytest.raises(InputError, match=r"RS\.zst: must be a whole zstd file"):
            rows(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"AskReddit"', r"RS\.zst, line 1: must be JSON"),
        (submission(score="many"), r"line 1: score must be an integer, got 'many'"),
        (submission(score=None), "score must be an integer"),
        (submission(over_18="maybe"), "over_18 must be true or false"),
        (submission(title=["x"]), "title must be text"),
        (submission(id_="A/../b"), "id must be a base-36 number"),
        (submission(created_utc="noon"), "created_utc must be a Unix time"),
        (submission(created_utc=1e30), "created_utc must be a Unix time"),
    ],
)
def test_odd_fields_are_one_sentence_with_file_and_line(tmp_path, line, message):
    zst(tmp_path / "RS.zst", line)
    with pytest.raises(InputError, match=message):
        rows(tmp_path)


@pytest.mark.skipif(not ORIGIN.exists(), reason="needs ../shared/data")
def test_the_real_submissions_give_titles_without_bodies():
    found, tally = rows(ORIGIN, max_post_chars=200_000)
    assert tally.n_read == 2000
    assert len(found) == 330
    assert sum(row.over_18 for row in found) > 0
    assert all(isinstance(row, Prompt) and row.group == "ask_reddit" for row in found)


def test_a_parent_that_no_utf8_file_can_hold_belongs_to_no_prompt(tmp_path):
    zst(tmp_path / "a.zst", submission(), comment(parent="t3_\ud800"))
    assert rows(tmp_path)[1].left_out == {"of r/WritingPrompts without a story": 1}


def test_a_subreddit_that_is_no_text_is_none_of_the_two(tmp_path):
    zst(tmp_path / "a.zst", submission(subreddit=["AskReddit"]))
    assert rows(tmp_path)[1].n_read == 0


@pytest.mark.parametrize("subreddit", ["AskReddit", "WritingPrompts"])
@pytest.mark.parametrize("title", [" " * 100_000 + "x", "[" + " " * 100_000 + "x", "[" + "[ " * 50_000])
def test_time_is_linear_in_a_title(tmp_path, subreddit, title):
    zst(tmp_path / "a.zst", submission(title=title, subreddit=subreddit))
    start = time.process_time()
    rows(tmp_path, max_post_chars=200_000, max_expansion=10**6)
    assert time.process_time() - start < 1  # quadratic: many seconds


def test_a_title_beyond_any_of_reddit_is_left_out(tmp_path):
    zst(tmp_path / "a.zst", *(submission(f"a{n}", title="x" * n, subreddit="AskReddit") for n in (1000, 1001)))
    found, tally = rows(tmp_path, max_post_chars=2000)
    assert [row.id for row in found] == ["r:a1000"]
    assert tally.left_out == {"with a title over 1,000 characters": 1}


@pytest.mark.parametrize("score", [5, 5.0, "5"])
def test_a_score_is_an_integer_in_any_spelling(tmp_path, score):
    zst(tmp_path / "a.zst", submission(subreddit="AskReddit", score=score))
    assert rows(tmp_path)[0][0].score == 5


@pytest.mark.parametrize("score", [1.7, True, "1_000", "\u0661", " 1", float("inf"), 2**62, "9" * 19])
def test_what_is_no_integer_is_refused_as_a_score(tmp_path, score):
    zst(tmp_path / "a.zst", submission(subreddit="AskReddit", score=score))
    with pytest.raises(InputError, match="score must be an integer"):
        rows(tmp_path)


def test_a_csv_of_no_known_subreddit_column_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,title\n1,Why?\n")
    with pytest.raises(InputError, match=r"a\.csv: must have a column subreddit or permalink, got id, title; correct"):
        rows(tmp_path)


def test_a_submission_given_twice_counts_once_and_is_told(tmp_path):
    zst(tmp_path / "a.zst", submission(), submission(title="[WP] A gate."), comment())
    (row,), tally = rows(tmp_path)
    assert row.title == "A gate."
    assert tally.aside == {"submissions given again": 1}
