"""reddit: read r/WritingPrompts as prompts with their best story, and r/AskReddit as prompts alone.

Two layouts, which may lie side by side: Pushshift's newline-delimited JSON in zstd (RS_*.zst submissions, RC_*.zst
comments, or one pair a subreddit; they need a window of 2^31, so reading them takes up to 2 GiB of memory where the
writer used it), and CSV files of submissions alone. What a line is follows from its fields, not from the file's name.
Files are read as a stream, each by itself (`gather`), in any order; then what they held is joined (`join`).

LIMA s2.1 chose by hand "from the most upvoted posts": 150 prompts of r/WritingPrompts with good stories or poems, for
training, and 70 titles of r/AskReddit that need no body, for the test alone ("their answers are unreliable"). Our
reading: a prompt is a submission of no moderator whose title opens with no tag but those of _PROMPT_TAGS; the tag goes,
its body is appended where there is one; the response is the top-level comment with the highest score, by no bot or
moderator, not stickied; a title needs no body if it has none. Scores and over-18 marks are kept for the stages behind.
A submission or comment that was deleted or removed is left out. Texts are Reddit's Markdown with its entities decoded
and its links gone.

Nobody licences these texts: the licence is unknown, hence null.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backports import zstd

from stages.common.errors import InputError
from stages.common.files import first_line
from stages.core.rows import Candidate, Prompt, Tally, iso_date, paragraphs, turns
from stages.runtime.lines import Readable, csv_header, csv_rows, json_rows, packed_lines, write_packed
from stages.runtime.pairing import Pair, Pairing
from stages.runtime.progress import progress

UNIT = "submissions"
SUBREDDITS = {"WritingPrompts": "writing_prompts", "AskReddit": "ask_reddit"}  # quota group of each

_SUBMISSION, _STORY = "submission", "story"  # what is gathered
_WINDOW_LOG_MAX = 31
_MAX_TITLE_CHARS = 1000  # Reddit allows 300
_PROMPT_TAGS = {
    "wp",
    "eu",
    "sp",
    "cw",
    "tt",
    "rf",
}  # writing, established universe, simple, constrained, theme, reality
_TAG = re.compile(r"\s*\[\s*([^\][]{1,20}?)\s*\]\s*")
_SERIOUS = re.compile(r"\s*[\[(]serious[\])]\s*", re.IGNORECASE)
_LINK = re.compile(r"!?\[([^\][]{0,500})\]\((?:[^()\s]|\([^()\s]{0,200}\)){1,2000}(?:\s\"[^\"]{0,200}\")?\)")
_GONE = {"[deleted]", "[removed]", "[deleted by user]", "[ removed by reddit ]"}
# "WritingPromptsBot", "haiku_bot" and what is known to be one, but not "Talbot" or "abbot"
_BOT = re.compile(
    r"(?:.*[-_0-9])?(?i:bot)|.*[a-z](?:Bot|BOT)|"
    r"(?i:automoderator|autotldr|autowikibot|haikubot|imgurtranscriber|remindmebot|sneakpeekbot|totesmessenger|wikitextbot)"
)
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_ID = re.compile(r"[0-9a-z]{1,12}")
_IN_PERMALINK = re.compile(r"/r/(\w+)/")


class Gathered(NamedTuple):
    """What a file held."""

    n_comments: int  # of r/WritingPrompts, whatever became of them
    aside: dict[str, int]  # comments that are no story, by reason


def files(folder: Path) -> list[Path]:
    """The files of a folder, in the order in which they are read: of a submission given twice the last counts."""
    return [*sorted(folder.rglob("*.zst")), *sorted(folder.rglob("*.csv"))]


def gather(path: Path, out: Path, *, max_post_chars: int, max_expansion: int) -> Gathered:
    """Write what `join` needs of the submissions and comments of a file to another, compressed.

    Args:
        path: the file.
        out: where to.
        max_post_chars: characters; a longer comment is left out.
        max_expansion: times that a zstd file's content may be larger than the file.

    Raises:
        InputError: the file is damaged or of another form, or out of proportion.
    """
    n_comments, aside = 0, Counter[str]()

    def lines() -> Iterator[bytes]:
        nonlocal n_comments
        for name, row in _rows(path, max_expansion):
            if "link_id" not in row:
                yield _line(_submission(name, row))
                continue
            n_comments += row["subreddit"] == "WritingPrompts"
            found = _comment(name, row, max_post_chars)
            if isinstance(found, str):
                aside.update([f"comments {found}"] if found else [])
            else:
                yield _line(found)

    write_packed(out, lines())
    return Gathered(n_comments, dict(aside))


def join(gathered: Sequence[Path], *, source: str, max_post_chars: int, tally: Tally) -> Iterator[Candidate | Prompt]:
    """Yield a row for each submission that can be used, by id.

    Args:
        gathered: what `gather` has written of each file, in their order.
        source: key of the source.
        max_post_chars: characters; a longer submission is left out.
        tally: counts the submissions of the two subreddits and what became of them.
    """
    with Pairing() as pairing:
        for path in gathered:
            for kind, *fields in map(json.loads, packed_lines(path)):
                if kind == _SUBMISSION:
                    pairing.add_prompt(*fields)
                else:
                    parent, score, number, story = fields
                    pairing.add_response(parent, score=score, number=number, fields=story)
        tally.aside += Counter({"submissions given again": pairing.n_repeated})
        for pair in pairing.pairs():
            tally.n_read += 1
            found = _row(pair, source=source, max_post_chars=max_post_chars)
            if isinstance(found, str):
                tally.left_out[found] += 1
            else:
                yield found


def tell_missing(tally: Tally, n_comments: int) -> None:
    """Note it where stories are missing because no file holds comments."""
    if not n_comments and tally.left_out["of r/WritingPrompts without a story"]:
        tally.notes.append("no file holds comments of r/WritingPrompts, so it gives no examples")


def _line(fields: list[Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _rows(path: Path, max_expansion: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and line, row) of every submission and comment of the subreddits."""
    if path.suffix == ".zst":
        for number, row in progress(_zst_rows(path, max_expansion), desc=path.name):
            if isinstance(row.get("subreddit"), str) and row["subreddit"] in SUBREDDITS:
                yield f"{path}, line {number}", row
        return
    header = csv_header(path)
    if not {"subreddit", "permalink"} & set(header):
        got = first_line(", ".join(header) or "none")
        raise InputError(f"{path}: must have a column subreddit or permalink, got {got}; correct the origin")
    for number, cells in csv_rows(path):
        subreddit = cells.get("subreddit") or "".join(_IN_PERMALINK.findall(cells.get("permalink", ""))[:1])
        if subreddit in SUBREDDITS:
            yield f"{path}, line {number}", {**cells, "subreddit": subreddit}


def _zst_rows(path: Path, max_expansion: int) -> Iterator[tuple[int, dict[str, Any]]]:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    try:
        with zstd.open(path, "rb", options=options) as file:
            yield from json_rows(
                _Bounded(file, path, max_expansion), path, mentions=[name.encode() for name in SUBREDDITS]
            )
    except (zstd.ZstdError, EOFError) as error:
        raise InputError(f"{path}: must be a whole zstd file, got {first_line(error)}; fetch it anew") from None


class _Bounded:
    """Reads a compressed file, and refuses to go on when it has given more than it may."""

    def __init__(self, file: Readable, path: Path, max_expansion: int) -> None:
        self.file, self.path, self.max_expansion = file, path, max_expansion
        self.left = max_expansion * path.stat().st_size

    def readline(self, size: int = -1, /) -> bytes:
        line = self.file.readline(size)
        self.left -= len(line)
        if self.left < 0:
            raise InputError(
                f"{self.path}: must unpack to at most {self.max_expansion} times its size, got more; "
                "if you trust it, raise `extract.max_expansion` in params.yaml"
            )
        return line


def _submission(name: str, row: dict[str, Any]) -> list[Any]:
    """Return a submission as it is gathered: its key, and what `_row` reads."""
    fields = [
        row["subreddit"],
        _text(name, row, "title"),
        _text(name, row, "selftext"),
        _integer(name, row, "score"),
        _boolean(name, row, "over_18"),
        _boolean(name, row, "is_self"),
        _author(name, row),
        _created(name, row),
        bool(row.get("distinguished")),
    ]
    return [_SUBMISSION, _native_id(name, row, "id"), fields]


def _comment(name: str, row: dict[str, Any], max_post_chars: int) -> list[Any] | str:
    """Return a comment that may be a response as it is gathered, or why it is none."""
    parent, comment_id = str(row.get("parent_id", "")), _native_id(name, row, "id")
    author, body = _text(name, row, "author"), _text(name, row, "body")
    if row["subreddit"] != "WritingPrompts" or not parent.startswith("t3_"):
        return ""  # an answer to a question, or a reply to a comment: no response, and no fault
    if body.strip().lower() in _GONE or not body.strip():
        return "deleted or removed"
    if _BOT.fullmatch(author) or _boolean(name, row, "stickied") or row.get("distinguished"):
        return "by a bot or moderator"
    if len(body) > max_post_chars:
        return f"over {max_post_chars:,} characters"
    story = [comment_id, body, _author(name, row), _created(name, row)]
    return [_STORY, parent.removeprefix("t3_"), _integer(name, row, "score"), int(comment_id, 36), story]


def _row(pair: Pair, *, source: str, max_post_chars: int) -> Candidate | Prompt | str:
    """Return the row of a submission, or why there is none."""
    subreddit, title, selftext, score, over_18, is_self, author, created, official = pair.prompt
    if {title.strip().lower(), selftext.strip().lower()} & _GONE:
        return "deleted or removed"
    if len(title) + len(selftext) > max_post_chars:
        return f"over {max_post_chars:,} characters"
    title = " ".join(title.split())
    if len(title) > _MAX_TITLE_CHARS:
        return f"with a title over {_MAX_TITLE_CHARS:,} characters"
    url = f"https://www.reddit.com/r/{subreddit}/comments/{pair.key}/"
    if subreddit == "AskReddit":
        title = _markdown(_SERIOUS.sub(" ", title))
        if selftext.strip() or is_self is False:
            return "of r/AskReddit with a body"
        if not title:
            return "without a title"
        return Prompt(
            id=f"{source}:{pair.key}",
            split=None,
            source=source,
            group=SUBREDDITS[subreddit],
            domain=subreddit,
            messages=turns(title),
            score=score,
            over_18=over_18,
            url=url,
            author=author,
            created=created,
        )
    tags, bare_title = _split_tags(title)
    if is_self is False or official or not tags <= _PROMPT_TAGS:
        return "of r/WritingPrompts that are no prompt"
    if pair.response is None:
        return "of r/WritingPrompts without a story"
    comment_id, story, writer, written = pair.response
    title, body = _markdown(bare_title), _markdown(selftext)
    prompt, response = paragraphs(title, body), _markdown(story)
    if not prompt or not response:
        return "without text"
    return Candidate(
        id=f"{source}:{pair.key}",
        source=source,
        domain=subreddit,
        group=SUBREDDITS[subreddit],
        score=pair.score,
        messages=turns(prompt, response),
        url=f"{url}_/{comment_id}/",
        author=writer,
        created=written,
        title=title or None,
        body=body or None,
        over_18=over_18,
        prompt_score=score,
    )


def _split_tags(title: str) -> tuple[set[str], str]:
    """Return the tags that a title opens with, in lower case, and the rest of it.

    >>> _split_tags("[WP] You find a [red] door.")
    ({'wp'}, 'You find a [red] door.')
    """
    tags = set()
    while tag := _TAG.match(title):
        tags.add(tag[1].lower())
        title = title[tag.end() :]
    return tags, title


def _markdown(text: str) -> str:
    """Return Reddit's Markdown with entities decoded once and links replaced by their text.

    >>> _markdown("Tom &amp; [Ann](http://a.b/c_(d)) wait.&amp;#x200B;")
    'Tom & Ann wait.'
    """
    text = html.unescape(text).replace("&#x200B;", "").replace("\u200b", "").replace("\r\n", "\n")
    return _LINK.sub(lambda link: "" if link[0].startswith("!") else link[1], text).strip()


# --- fields ------------------------------------------------------------------------------------------------------
# CSV holds text only, Pushshift's months differ in types: "1", 1 and 1.0, "True" and true, null and absent.


def _text(name: str, row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name}: {field} must be text, got {str(value)[:40]!r}; mend the file")
    return value or ""


def _author(name: str, row: dict[str, Any]) -> str | None:
    author = _text(name, row, "author")
    return None if author.lower() in _GONE else author or None


def _integer(name: str, row: dict[str, Any], field: str) -> int:
    value = row.get(field)
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _INTEGER.fullmatch(value)):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62:
        return value
    raise InputError(f"{name}: {field} must be an integer, got {str(value)[:40]!r}; mend the file")


def _boolean(name: str, row: dict[str, Any], field: str) -> bool | None:
    value = row.get(field)
    if value in (None, ""):
        return None
    known = {"true": True, "false": False}.get(str(value).lower())
    if known is None:
        raise InputError(f"{name}: {field} must be true or false, got {str(value)[:40]!r}; mend the file")
    return known


def _created(name: str, row: dict[str, Any]) -> str | None:
    value = row.get("created_utc")
    if value in (None, ""):
        return None
    try:
        return iso_date(float(value))
    except (ValueError, TypeError, OverflowError, OSError):
        raise InputError(f"{name}: created_utc must be a Unix time, got {str(value)[:40]!r}; mend the file") from None


def _native_id(name: str, row: dict[str, Any], field: str) -> str:
    value = str(row.get(field, ""))
    if not _ID.fullmatch(value):
        raise InputError(f"{name}: {field} must be a base-36 number, got {value[:40]!r}; mend the file")
    return value
