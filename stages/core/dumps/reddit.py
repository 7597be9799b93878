"""Reddit: a month of submissions and one of comments in Pushshift's layout, zstd with a long window."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard

from stages.core.dumps.rates import (
    EPOCH,
    N_ASK_REDDIT,
    N_WRITING_PROMPTS,
    REDDIT_CHATTER_RATE,
    REDDIT_DELETED_RATE,
    REDDIT_LOW_SCORE_RATE,
    REDDIT_OVER_18_RATE,
)
from stages.core.world import INSTRUMENTS, TRADES, Rng, World, pick, premise, story, weighted, with_article

_MONTH = "2019-04"
_BOT_NOTE = (
    "**Off-Topic Discussion**: All top-level comments must be a story or poem. Reply here for other comments.\n\n"
    "I am a bot, and this action was performed automatically."
)
_CHATTER = ("I would read that book.", "This was posted last week.", "Commenting so I find this later.", "Nice prompt!")
_BAD_TITLES = (
    "AskReddit, look at this", "Title says it", "So this just happened to me", "(Serious) what is wrong with my ex?",
    "Is this a good price for a boat? Details inside", "Vote for my shop!!!", "Why is everybody here so rude",
)  # fmt: skip


def ask_reddit_titles() -> list[str]:
    """Return the titles of r/AskReddit that can be answered without a body: test prompts without references."""
    return [
        *(f"What was the hardest thing about learning the {name}?" for name in INSTRUMENTS[:12]),
        *(f"What would you ask {with_article(trade)} if you met one?" for trade in list(TRADES)[:14]),
        *(f"Which {product} would you never buy, and why?" for _, product in list(TRADES.values())[:8]),
        "What do you eat when it rains for three days?", "Which song do you play at weddings?",
        "What did the old people of your town tell you?", "What is the best thing about a small town?",
        "What would you keep if your house burned down?", "Which river would you like to live on?",
        "What makes a good master?", "What did you learn too late?", "What is worth getting up before dawn for?",
        "Which dish reminds you of home?", "What do you say to a friend who moves away?",
        "What should every child learn?",
    ]  # fmt: skip


def reddit(world: World) -> dict[str, bytes]:
    """Pushshift's monthly files: submissions (RS) and comments (RC) of two subreddits, ndjson in zstd."""
    rng = np.random.default_rng([world.seed, 13])
    submissions: list[dict[str, Any]] = []
    comments: list[dict[str, Any]] = []
    for _ in range(N_WRITING_PROMPTS):
        words = premise(world, rng)
        tag = weighted(rng, {"[WP]": 0.9, "[EU]": 0.05, "[OT]": 0.05})
        post = _submission(len(submissions), "WritingPrompts", f"{tag} {words['premise']}", rng)
        submissions.append(post)
        note = _reddit_comment(len(comments), post, _BOT_NOTE, "AutoModerator", rng)
        comments.append(note | {"stickied": True, "score": 1})
        for _ in range(int(rng.integers(1, 4))):
            body = pick(rng, _CHATTER) if rng.random() < REDDIT_CHATTER_RATE else story(words, rng)
            comments.append(_reddit_comment(len(comments), post, body, _redditor(rng), rng))
            if rng.random() < 0.3:
                comments.append(_reddit_comment(len(comments), post, "This was lovely.", _redditor(rng), rng)
                                | {"parent_id": f"t1_{comments[-1]['id']}"})  # fmt: skip
    titles = ask_reddit_titles()
    titles += [pick(rng, _BAD_TITLES) for _ in range(N_ASK_REDDIT - len(titles))]
    for i in map(int, rng.permutation(len(titles))):
        bad = titles[i] in _BAD_TITLES
        post = _submission(len(submissions), "AskReddit", titles[i], rng)
        post["selftext"] = "Long story, see the details here." if bad else ""
        post["score"] = int(rng.integers(0, 40)) if bad else int(rng.integers(200, 9000))
        submissions.append(post)
        comments.append(_reddit_comment(len(comments), post, "I think it depends.", _redditor(rng), rng))
    return {f"RS_{_MONTH}.zst": _zst(submissions), f"RC_{_MONTH}.zst": _zst(comments)}


def _redditor(rng: Rng) -> str:
    first, second = pick(rng, ("quiet", "red", "late", "north", "paper")), pick(rng, ("fox", "mill", "harp", "rain"))
    return f"{first}_{second}{int(rng.integers(100))}"


def _submission(i: int, subreddit: str, title: str, rng: Rng) -> dict[str, Any]:
    post_id, created = _base36(34_000_000 + i), int(EPOCH.timestamp()) + 86_400 * 31 + i * 900
    score = int(rng.integers(0, 8)) if rng.random() < REDDIT_LOW_SCORE_RATE else int(rng.integers(40, 6000))
    post = {
        "id": post_id, "name": f"t3_{post_id}", "subreddit": subreddit, "subreddit_id": f"t5_{subreddit[:4].lower()}",
        "author": _redditor(rng), "title": title, "selftext": "", "score": score,
        "num_comments": int(rng.integers(1, 90)),
        "created_utc": str(created) if i % 20 == 7 else created,  # older months hold strings
        "over_18": bool(rng.random() < REDDIT_OVER_18_RATE), "is_self": True, "stickied": False,
        "permalink": f"/r/{subreddit}/comments/{post_id}/",
        "url": f"https://www.reddit.com/r/{subreddit}/comments/{post_id}/",
        "link_flair_text": "Writing Prompt" if subreddit == "WritingPrompts" else None, "edited": False,
    }  # fmt: skip
    if rng.random() < REDDIT_DELETED_RATE:
        post |= pick(rng, ({"author": "[deleted]", "selftext": "[deleted]"}, {"selftext": "[removed]"}))
    return post


def _reddit_comment(i: int, post: dict[str, Any], body: str, author: str, rng: Rng) -> dict[str, Any]:
    comment_id = _base36(2_100_000_000 + i)
    score = int(rng.integers(-3, 8)) if rng.random() < REDDIT_LOW_SCORE_RATE else int(rng.integers(10, 3000))
    comment = {
        "id": comment_id, "link_id": post["name"], "parent_id": post["name"], "subreddit": post["subreddit"],
        "subreddit_id": post["subreddit_id"], "author": author, "body": body, "score": score,
        "created_utc": int(post["created_utc"]) + 600 + i % 500, "stickied": False, "edited": False, "gilded": 0,
        "permalink": f"{post['permalink']}_/{comment_id}/",
        "distinguished": "moderator" if author == "AutoModerator" else None,
    }  # fmt: skip
    if author != "AutoModerator" and rng.random() < REDDIT_DELETED_RATE:
        comment |= pick(rng, ({"author": "[deleted]", "body": "[deleted]"}, {"body": "[removed]"}))
    return comment


def _base36(n: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return (_base36(n // 36) if n >= 36 else "") + digits[n % 36]


def _zst(rows: Sequence[dict[str, Any]]) -> bytes:
    """A frame with a window of 2^27: a reader that keeps to zstd's default limit of 2^26 fails, as on the real 2^31."""
    params = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, hash_log=16, chain_log=16)
    compressor = zstandard.ZstdCompressor(compression_params=params).compressobj()  # no size known, so the window stays
    data = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
    return compressor.compress(data) + compressor.flush()
