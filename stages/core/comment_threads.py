r"""comment_threads: the comments under an answer as further turns between asker and answerer.

LIMA s6 took 20 dialogues from comment threads of Stack Exchange and edited them by hand; how is not told. *Our
reading*, for a thread that nobody edits:

- turns are comments on the best answer by its author (assistant) and the question's (user), two different people, in
  the order of their ids; comments in a row by one person are one turn, since a comment has at most 600 characters;
- the first turn is the asker's: what the answerer adds before is no reply and is passed over;
- the dialogue ends before a comment by anybody else, or to anybody else by "@name", as what follows may be meant for
  them, and before a turn that cleaning leaves empty;
- it ends with the answerer, so an asker's last word goes; there is one exchange at least, four messages with question
  and answer.

Comments are Markdown, cleaned to bare text as the posts are: an opening "@name" goes, links leave their text, emphasis
leaves its words, code keeps its backticks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from stages.core.rows import paragraphs

_MENTION = re.compile(r"^@([^\s,:;]{1,60})[,:;]?\s*")
_LINK = re.compile(
    r"!?\[([^\][]{1,500})\]\([^()\s]{1,1000}(?:\([^()\s]{0,200}\)[^()\s]{0,200})?(?:\s+\"[^\"]{0,200}\")?\)"
)
_EMPHASIS = re.compile(r"(?<![\w*\\])(\*\*|\*|__|_)(?=\S)([^*_`\n]{1,300}?)(?<=\S)\1(?![\w*])")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)|\$[^$]+\$", re.DOTALL)
_MAX_COMMENT_CHARS = 2000  # the site allows 600, the source of some has more; so that the patterns take no time
_MIN_PREFIX = 3  # a mention may be cut to this many characters of a name


class Turn(NamedTuple):
    """One turn, and which comments it is made of."""

    role: str
    content: str
    comments: tuple[int, ...]


def follow_up(
    comments: Sequence[tuple[str | None, str]], *, asker: tuple[str, str | None], answerer: tuple[str, str | None]
) -> list[Turn]:
    """Return the turns that follow the answer, an even number, user first; none where there is no dialogue.

    Args:
        comments: (user, text) by id.
        asker: user and name, where it is known.
        answerer: the same.

    >>> follow_up([("1", "@bo Why?"), ("2", "It *is*.")], asker=("1", "Ann"), answerer=("2", "Bo"))
    [Turn(role='user', content='Why?', comments=(0,)), Turn(role='assistant', content='It is.', comments=(1,))]
    """
    if asker[0] == answerer[0]:
        return []
    turns: list[Turn] = []
    for i, (user, text) in enumerate(comments):
        role = {asker[0]: "user", answerer[0]: "assistant"}.get(user or "")
        partner = answerer if role == "user" else asker
        mention = _MENTION.match(text.lstrip())
        if role is None or len(text) > _MAX_COMMENT_CHARS or (mention and not is_meant(mention[1], partner[1])):
            break
        content = clean_comment(text)
        if not turns and role == "assistant":
            continue
        if turns and turns[-1].role == role:
            last = turns.pop()
            turns.append(Turn(role, paragraphs(last.content, content), (*last.comments, i)))
        elif not content:
            break
        else:
            turns.append(Turn(role, content, (i,)))
    return turns if len(turns) % 2 == 0 else turns[:-1]


def is_meant(mention: str, name: str | None) -> bool:
    """Say whether "@mention" is a person: the site lets one write a name without its spaces, or its beginning.

    >>> is_meant("johnd", "John Doe"), is_meant("jane", "John Doe"), is_meant("bo.", "Bo")
    (True, False, True)
    """
    if name is None:
        return True  # nobody can tell
    written, full = (re.sub(r"\W", "", text).casefold() for text in (mention, name))
    return full.startswith(written) and (len(written) >= _MIN_PREFIX or written == full)


def clean_comment(text: str) -> str:
    """Return the bare text of a comment, in one line.

    >>> clean_comment("@Bo: see [the **manual**](http://a.b/c) for `a_b_c`, not_that_one.")
    'see the manual for `a_b_c`, not_that_one.'
    """
    text = _LINK.sub(r"\1", _MENTION.sub("", text.strip()))
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [_EMPHASIS.sub(r"\2", text[end : code.start()]), code[0]]
        end = code.end()
    parts.append(_EMPHASIS.sub(r"\2", text[end:]))
    return " ".join("".join(parts).split())
