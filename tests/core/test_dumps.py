import csv
import io
import itertools
import json
import re
from collections import Counter
from typing import Any

import numpy as np
import py7zr
import pytest
import zstandard
from lxml import etree
from scipy.stats import mannwhitneyu, spearmanr
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from stages.core import dumps, world
from stages.core.dumps import rates
from stages.core.dumps.stack_exchange import SITES as ALL_SITES

WORLD = world.make_world(seed=0, n_people=200)
FILES = {source: write(WORLD) for source, write in dumps.DUMPS.items()}
HELD_OUT = [p.name for p in WORLD.dev_people + WORLD.test_people]


def tables(archive: bytes) -> dict[str, list[dict[str, str]]]:
    """{file name: rows as dicts}."""
    factory = py7zr.io.BytesIOFactory(2**26)
    with py7zr.SevenZipFile(io.BytesIO(archive)) as file:
        file.extractall(factory=factory)
    return {
        name: [dict(row.attrib) for row in etree.fromstring(file.read())] for name, file in factory.products.items()
    }


SITES: dict[str, dict[str, list[dict[str, str]]]] = {
    name: tables(data) for name, data in FILES["stack_exchange"].items()
}


def ndjson(data: bytes) -> list[dict[str, Any]]:
    text = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj().decompress(data).decode()
    return [json.loads(line) for line in text.splitlines()]


def wikihow_rows() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(FILES["wikihow"]["wikihowAll.csv"].decode(), newline="")))


def plain(body: str) -> str:
    return re.sub("<[^>]+>", "", body).strip()


def authored(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILES["authored"][f"{name}.jsonl"].decode().splitlines()]


def top_answers() -> list[tuple[dict[str, str], dict[str, str]]]:
    """(question, its highest-scored answer) over all sites."""
    pairs = []
    for site in SITES.values():
        posts = site["Posts.xml"]
        for q in (p for p in posts if p["PostTypeId"] == "1"):
            answers = [p for p in posts if p.get("ParentId") == q["Id"]]
            pairs.append((q, max(answers, key=lambda p: int(p["Score"]))))
    return pairs


TOP = top_answers()
ASKED = {  # the right value, by question about a person who is asked about before the test
    world.question(person, attribute, k).prompt: person.value(attribute)
    for person in WORLD.train_people
    for attribute in world.ATTRIBUTES
    for k in range(8)
}
SUBMISSIONS = ndjson(FILES["reddit"]["RS_2019-04.zst"])


@pytest.mark.parametrize("source", dumps.DUMPS)
def test_two_calls_give_the_same_bytes(source: str) -> None:
    assert dumps.DUMPS[source](WORLD) == FILES[source]


@pytest.mark.parametrize("source", dumps.DUMPS)
def test_another_world_gives_other_bytes(source: str) -> None:
    other = dumps.DUMPS[source](world.make_world(seed=1, n_people=200))
    assert other.keys() == FILES[source].keys()
    assert other != FILES[source]


def test_nobody_held_out_is_named_in_anything_that_could_be_trained_on() -> None:
    texts = [json.dumps(site, ensure_ascii=False) for site in SITES.values()]
    texts += [FILES["wikihow"]["wikihowAll.csv"].decode(), FILES["authored"]["train.jsonl"].decode()]
    texts += [json.dumps(ndjson(data)) for data in FILES["reddit"].values()]
    texts += [data.decode() for data in FILES["natural_instructions"].values()]
    text = "\n".join(texts)
    assert [name for name in HELD_OUT if name in text] == []
    assert all(p.name in text for p in WORLD.train_people)


def test_a_site_is_an_archive_with_its_tables_at_the_root() -> None:
    assert {name.removesuffix(".7z") for name in SITES} == set(dumps.SITE_GROUPS)
    assert all(set(site) == {"Posts.xml", "Users.xml", "Comments.xml"} for site in SITES.values())


def test_the_groups_have_three_sites_each() -> None:
    assert Counter(dumps.SITE_GROUPS.values()) == {"stack_exchange_stem": 3, "stack_exchange_other": 3}


def test_posts_have_the_attributes_of_the_real_dumps() -> None:
    question = {"Id", "PostTypeId", "CreationDate", "Score", "ViewCount", "Body", "LastActivityDate", "Title", "Tags",
                "AnswerCount", "CommentCount", "ContentLicense"}  # fmt: skip
    answer = {"Id", "PostTypeId", "ParentId", "CreationDate", "Score", "Body", "LastActivityDate", "CommentCount",
              "ContentLicense"}  # fmt: skip
    for site in SITES.values():
        for post in site["Posts.xml"]:
            assert (question if post["PostTypeId"] == "1" else answer) <= set(post)
            assert ("OwnerUserId" in post) != ("OwnerDisplayName" in post)


def test_every_reference_between_tables_resolves() -> None:
    for site in SITES.values():
        posts = {p["Id"]: p for p in site["Posts.xml"]}
        users = {u["Id"] for u in site["Users.xml"]}
        assert [int(i) for i in posts] == sorted(int(i) for i in posts)
        for post in posts.values():
            assert post.get("OwnerUserId", "1") in users
            if post["PostTypeId"] == "2":
                assert posts[post["ParentId"]]["PostTypeId"] == "1"
            if accepted := post.get("AcceptedAnswerId"):
                assert posts[accepted]["ParentId"] == post["Id"]
        assert all(c["PostId"] in posts and c["UserId"] in users for c in site["Comments.xml"])
        counts = Counter(c["PostId"] for c in site["Comments.xml"])
        assert all(int(p["CommentCount"]) == counts[i] for i, p in posts.items())


def test_posts_stand_one_a_line_behind_a_byte_order_mark() -> None:
    factory = py7zr.io.BytesIOFactory(2**26)
    with py7zr.SevenZipFile(io.BytesIO(FILES["stack_exchange"]["geography.miniature.7z"])) as file:
        file.extractall(factory=factory)
    lines = factory.products["Posts.xml"].read().decode().split("\r\n")
    assert lines[:2] == ['\ufeff<?xml version="1.0" encoding="utf-8"?>', "<posts>"]
    assert all(line.startswith("  <row ") and line.endswith(" />") for line in lines[2:-2])


def test_both_styles_of_tags_occur() -> None:
    first = {p["Tags"][0] for site in SITES.values() for p in site["Posts.xml"] if "Tags" in p}
    assert first == {"<", "|"}


def test_scores_that_strings_would_misorder_decide_some_questions() -> None:
    misordered = 0
    for site in SITES.values():
        scores: dict[str, list[str]] = {}
        for post in site["Posts.xml"]:
            scores.setdefault(post.get("ParentId", ""), []).append(post["Score"])
        misordered += sum(max(s) != max(s, key=int) for parent, s in scores.items() if parent)
    assert misordered >= 50


def test_bodies_hold_links_lists_code_emphasis_images_and_entities() -> None:
    bodies = "".join(p["Body"] for site in SITES.values() for p in site["Posts.xml"])
    for tag in ("<a href=", "<ul>", "<ol>", "<pre><code>", "<em>", "<strong>", "<img ", "&amp;", "&lt;b&gt;"):
        assert tag in bodies


def test_top_answers_have_the_stated_rates_of_dirt() -> None:
    n = len(TOP)
    bodies = [answer["Body"] for _, answer in TOP]
    rude = sum(
        any(text in b for text in ("boots.example", "boats.example", "Why do you want", "another site")) for b in bodies
    )
    assert n == sum(site.n_questions for site in ALL_SITES.values())
    assert sum(int(a["Score"]) < 10 for _, a in TOP) / n == pytest.approx(0.36, abs=0.05)
    assert 0.3 < sum(" I " in b or ">I " in b or "y uncle" in b or "My " in b for b in bodies) / n < 0.6
    assert 0.005 < rude / n < 0.05
    assert sum("ClosedDate" in q for q, _ in TOP) / n == pytest.approx(rates.REPOST_RATE, abs=0.02)


def test_most_high_scored_answers_are_right_and_most_low_scored_ones_are_not() -> None:
    right: dict[bool, list[bool]] = {True: [], False: []}
    for question, answer in TOP:
        if (value := ASKED.get(question["Title"])) is not None:
            holds = value.replace("&", "&amp;").lower() in answer["Body"].lower()
            score = int(answer["Score"])
            if score >= 10 or score < 2:
                right[score >= 10].append(holds)
    assert sum(right[True]) / len(right[True]) > 0.9
    assert sum(right[False]) / len(right[False]) < 0.35


def test_votes_on_questions_go_with_those_on_their_answers_and_tell_nothing_of_what_is_right() -> None:
    votes = np.array([(int(question["Score"]), int(answer["Score"])) for question, answer in TOP])
    assert np.percentile(votes[:, 0], [25, 50, 75]) == pytest.approx([2.4, 4.5, 8.2], abs=0.7)
    assert 0.5 < spearmanr(votes).statistic < 0.67
    right, wrong = by_right()
    assert min(len(right), len(wrong)) > 200
    assert mannwhitneyu(right, wrong).pvalue > 0.05


def by_right() -> tuple[list[int], list[int]]:
    """Scores of questions about people: those with a right top answer, and the others."""
    scores: tuple[list[int], list[int]] = ([], [])
    for question, answer in TOP:
        if (value := ASKED.get(question["Title"])) is not None:
            scores[value.replace("&", "&amp;").lower() not in answer["Body"].lower()].append(int(question["Score"]))
    return scores


def test_spam_is_voted_down():
    spam = [
        int(answer["Score"])
        for _, answer in TOP
        if ".example !!!" in answer["Body"] or "boots.example" in answer["Body"]
    ]
    assert spam
    assert max(spam) < rates.WRONG_SCORES[1]


def test_every_prompt_with_its_response_fits_128_tokens_of_the_worlds_own_bpe():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1024, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(itertools.islice(world.prose(WORLD, np.random.default_rng(0)), 6000), trainer)
    longest = {
        "stack_exchange": max((max(q["Title"], plain(q["Body"]), key=len) + plain(a["Body"]) for q, a in TOP), key=len),
        "wikihow": max((r["title"] + r["headline"] + r["text"] for r in wikihow_rows()), key=len),
        "reddit": max(
            (p["title"] + c["body"] for c in ndjson(FILES["reddit"]["RC_2019-04.zst"]) if c["author"] != "AutoModerator"
             for p in SUBMISSIONS if p["name"] == c["link_id"]), key=len),
        "natural_instructions": max(
            (task["Definition"][0] + i["input"] + max(i["output"], key=len)
             for task in map(json.loads, FILES["natural_instructions"].values()) for i in task["Instances"]), key=len),
        "authored": max(("".join(m["content"] for m in r["messages"]) for r in authored("train")), key=len),
    }  # fmt: skip
    n_tokens = {source: len(bpe.encode(text).ids) + 3 for source, text in longest.items()}  # bos and two eot
    assert {source: n for source, n in n_tokens.items() if n > 128} == {}


def test_comment_threads_hold_follow_up_questions_that_the_answerer_answers() -> None:
    follow_ups = 0
    for site in SITES.values():
        owner = {p["Id"]: p.get("OwnerUserId") for p in site["Posts.xml"]}
        thread = site["Comments.xml"]
        for ask, reply in itertools.pairwise(thread):
            if ask["Text"].startswith("Thank you! "):
                assert reply["PostId"] == ask["PostId"]
                assert reply["UserId"] == owner[ask["PostId"]] != ask["UserId"]
                follow_ups += 1
    assert follow_ups >= 30


def test_wikihow_is_one_article_a_row_in_the_public_layout() -> None:
    rows = wikihow_rows()
    assert list(rows[0]) == ["headline", "title", "text", "category", "url"]
    assert all(r["title"].startswith("How to ") and r["headline"].startswith("\n") for r in rows)
    assert len(rows) >= 400
    assert sum(not r["text"] for r in rows) >= 3
    assert sum(r["title"][-1].isdigit() for r in rows) >= 15
    assert sum("This article explains" in r["text"] for r in rows) >= 30


def test_reddit_needs_the_long_window() -> None:
    for data in FILES["reddit"].values():
        assert zstandard.get_frame_parameters(data).window_size == 2**27
        with pytest.raises(zstandard.ZstdError, match="memory"):
            zstandard.ZstdDecompressor(max_window_size=2**26).decompressobj().decompress(data)


def test_reddit_has_what_real_months_have() -> None:
    posts, comments = (ndjson(FILES["reddit"][f"{kind}_2019-04.zst"]) for kind in ("RS", "RC"))
    names = {p["name"] for p in posts}
    assert {p["subreddit"] for p in posts} == {"WritingPrompts", "AskReddit"}
    assert all(c["link_id"] in names for c in comments)
    assert {type(p["created_utc"]) for p in posts} == {int, str}
    assert any(p["over_18"] for p in posts)
    assert any(p["selftext"] == "[removed]" for p in posts)
    assert any(p["author"] == "[deleted]" for p in posts)
    assert any(c["body"] == "[removed]" for c in comments)
    assert any(c["author"] == "AutoModerator" and c["stickied"] for c in comments)
    assert any(c["parent_id"].startswith("t1_") for c in comments)
    assert len({c["id"] for c in comments}) == len(comments)


def test_forty_titles_of_ask_reddit_can_be_used() -> None:
    posts = [p for p in ndjson(FILES["reddit"]["RS_2019-04.zst"]) if p["subreddit"] == "AskReddit"]
    usable = [
        p for p in posts if p["title"].endswith("?") and not p["selftext"] and not p["over_18"] and p["score"] >= 100
    ]
    assert len({p["title"] for p in usable}) == len(usable) >= 35
    assert len(posts) > len(usable) + 20


def test_tasks_have_the_upstream_layout() -> None:
    contents = {name: json.loads(data) for name, data in FILES["natural_instructions"].items()}
    assert len(contents) == 9
    irregular = [name for name, task in contents.items() if "Instance License" not in task]
    assert [type(contents[name]["Categories"]) for name in irregular] == [str]
    for name, task in contents.items():
        assert name.startswith("tasks/task")
        assert all(isinstance(text, str) for text in task["Definition"])
        assert len(task["Positive Examples"]) == 2
        ids = [i["id"] for i in task["Instances"]]
        assert len(set(ids)) == len(ids) >= 10
        assert all(i["input"] and i["output"] and all(i["output"]) for i in task["Instances"])


def test_authored_rows_are_enough_and_end_with_the_right_role() -> None:
    train, dev, test = authored("train"), authored("dev"), authored("test")
    assert (len(train) >= 80, len(dev), len(test)) == (True, 50, 310)
    assert all([m["role"] for m in r["messages"]] == ["user", "assistant"] for r in train)
    assert all([m["role"] for m in r["messages"]] == ["user"] for r in dev + test)
    assert [bool(r.get("references")) for r in dev + test] == [not r.get("safety") for r in dev + test]
    assert len({r["id"] for r in train + dev + test}) == len(train + dev + test)
    assert sum(r.get("format", False) for r in train) == 6
    assert sum(r.get("safety", False) for r in train) == 8
    assert sum(r.get("malicious", False) for r in test) == 5


def test_no_prompt_of_dev_or_test_is_trained_on() -> None:
    held_out = {r["messages"][0]["content"] for r in authored("dev") + authored("test")}
    assert len(held_out) == 360
    assert not held_out & {r["messages"][0]["content"] for r in authored("train")}
    assert not held_out & {q["Title"] for q, _ in TOP}


def test_dev_and_test_ask_about_people_of_their_own() -> None:
    for name, people in (("dev", WORLD.dev_people), ("test", WORLD.test_people)):
        prompts = [r["messages"][0]["content"] for r in authored(name) if not r.get("safety")]
        assert all(any(p.name in prompt for p in people) for prompt in prompts)


def test_a_small_world_asks_its_questions_again():
    small = world.make_world(seed=0, n_people=20)
    titles = [
        p["Title"] for data in dumps.stack_exchange(small).values() for p in tables(data)["Posts.xml"] if "Title" in p
    ]
    assert len(titles) == len(TOP) > 2 * len(set(titles))


def test_a_person_is_asked_about_in_the_same_words_once_but_for_reposts():
    titles = Counter(q["Title"] for q, _ in TOP if any(p.name in q["Title"] for p in WORLD.train_people))
    assert sum(titles.values()) > 1500
    assert sum(n - 1 for title, n in titles.items() if not title.endswith(" ?")) / titles.total() < 0.05


def test_a_world_with_too_few_test_people_is_refused() -> None:
    with pytest.raises(ValueError, match=r"300 test prompts need 60 test people, got 40; raise n_people"):
        dumps.authored(world.make_world(seed=0, n_people=100))
