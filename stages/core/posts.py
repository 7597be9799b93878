"""posts: a question of Stack Exchange with its best answer, as the rows that come of it.

LIMA s2.1: the prompt is title, body or both, the response "the top answer"; both are cleaned by `html_text`. A row so
is the work of two: its author is the answerer and then the asker, as far as they are named, its licence the
ContentLicense of both posts. Dumps from before that column (2020) say nothing post by post; they were published as a
whole under CC BY-SA 3.0, so that is what their posts carry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from stages.core.comment_threads import follow_up
from stages.core.html_text import html_to_text
from stages.core.rows import Candidate, paragraphs, turns

OLD_LICENSE = "CC BY-SA 3.0"
DIALOGUE_GROUP = "stack_exchange_dialogue"
WATERMARKS = ("1000000001", "1000000010")  # invented posts in every dump since 2025-06 (data/catalog/README.md)

_TAG = re.compile("[^<>|]+")  # of <a><b>, or of |a|b| since 2024

Row = dict[str, str]  # the attributes of a row of a dump, those that it has

# The attributes that are read.
QUESTION = ("Title", "Body", "Score", "Tags", "OwnerUserId", "OwnerDisplayName", "ContentLicense")
ANSWER = ("Id", "Body", "Score", "CreationDate", "OwnerUserId", "OwnerDisplayName", "ContentLicense")
COMMENT = ("Id", "Text", "UserId", "CreationDate", "ContentLicense")


class Thread(NamedTuple):
    """A question, its best answer and the comments on that answer."""

    key: str  # the question's Id
    question: Row
    answer: Row
    asker: str | None = None  # names behind the posts' OwnerUserId, where they are known
    answerer: str | None = None
    comments: tuple[Row, ...] = ()  # by Id; none where asker and answerer do not both comment


class Site(NamedTuple):
    """Where threads are from."""

    name: str
    group: str  # quota group
    source: str  # key of the source


def candidate(thread: Thread, site: Site, *, max_post_chars: int) -> Candidate | str:
    """Return the row of a thread, or why there is none."""
    question, answer = thread.question, thread.answer
    if thread.key in WATERMARKS or answer["Id"] in WATERMARKS:
        return "invented by the publisher"
    if max(len(question.get("Body", "")), len(answer.get("Body", ""))) > max_post_chars:
        return f"over {max_post_chars:,} characters"
    title, body = " ".join(question.get("Title", "").split()), html_to_text(question.get("Body", ""))
    response = html_to_text(answer.get("Body", ""))
    if not title:
        return "without a title"
    if not response:
        return "with an answer that has no text"
    return Candidate(
        id=f"{site.source}:{site.name}/{thread.key}",
        source=site.source,
        domain=site.name,
        group=site.group,
        score=int(answer["Score"]),
        messages=turns(paragraphs(title, body), response),
        url=f"https://{site.name}/a/{answer['Id']}",
        author=_united(
            [thread.answerer or answer.get("OwnerDisplayName"), thread.asker or question.get("OwnerDisplayName")]
        ),
        license=_licenses(question, answer),
        created=answer["CreationDate"][:10] if answer.get("CreationDate") else None,
        tags=_TAG.findall(question.get("Tags", "")) or None,
        title=title,
        body=body or None,
        prompt_score=int(question["Score"]),
    )


def dialogue(row: Candidate, thread: Thread) -> Candidate | None:
    """Return the thread as a dialogue that goes on from its row, where its comments are one.

    It has the votes on the answer, the licences of all its parts, the date of its last turn, and the address of the
    answer, under which the comments stand.
    """
    question, answer = thread.question, thread.answer
    asked, answered = question.get("OwnerUserId"), answer.get("OwnerUserId")
    if not thread.comments or not asked or not answered:
        return None
    more = follow_up(
        [(comment.get("UserId"), comment.get("Text", "")) for comment in thread.comments],
        asker=(asked, thread.asker), answerer=(answered, thread.answerer),
    )  # fmt: skip
    if not more:
        return None
    said = [thread.comments[i] for turn in more for i in turn.comments]
    return row._replace(
        id=f"{row.id}/comments",
        group=DIALOGUE_GROUP,
        messages=[*row.messages, *({"role": turn.role, "content": turn.content} for turn in more)],
        url=f"{row.url}#comments",
        license=_licenses(question, answer, *said),
        created=said[-1]["CreationDate"][:10] if said[-1].get("CreationDate") else row.created,
    )


def _licenses(*parts: Row) -> str | None:
    """The licences of what was put together, by name."""
    return _united(sorted(part.get("ContentLicense") or OLD_LICENSE for part in parts))


def _united(names: Sequence[str | None]) -> str | None:
    """Each name once, in one text; None where there is none.

    >>> _united(["Bo", None, "Ann", "Bo"])
    'Bo; Ann'
    """
    return "; ".join(dict.fromkeys(name for name in names if name)) or None
