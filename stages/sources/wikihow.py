"""wikihow: read CSV files of articles, one article a row: "How to ...?" and its steps as a numbered list.

Three public layouts, told apart by their columns:

- an article a row (wikihowAll.csv): `headline` holds the first sentences of all steps, `text` what follows each;
- a step a row with its section (wikihowSep.csv): `overview`, `headline`, `text`, `sectionLabel`, `title`;
- a step a row (scraped pages): `title`, `heading`, `paragraph`; the paragraph mostly begins with its heading again.

Each may also have `category`, `url`, `license` or `author`; no public file has more than the first. The domain is the
category; where the file has none it is "wikihow", so that diversity over categories (LIMA s2.1: 19 of them) needs a
file that names them. The address follows from the title, as wikiHow forms it: "How to Lay Brick" is at
https://www.wikihow.com/Lay-Brick. wikiHow publishes under CC BY-NC-SA 3.0. Who wrote an article, and when, is in none
of the layouts: unknown, hence null.

LIMA s2.1: the prompt is the title, the response the body, an opening "This article ..." becomes "The following
answer ...", links, images and some sections are pruned. Our reading: "This wikiHow ..." is treated alike; pruned are
citations ("[3] X Research source"), image data, and the sections of _PRUNED. In the release steps are `1.` lists under
`## ` headings.

Titles of scraped pages are made for search engines: "3 Ways to Lay Brick - wikiHow" and "How to Boil Cabbage: 12 Steps"
are the articles "How to Lay Brick" and "How to Boil Cabbage". A title that is no how-to is left out.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from stages.common.errors import InputError
from stages.common.files import first_line
from stages.core.rows import Candidate, Tally, paragraphs, turns
from stages.runtime.lines import csv_header, csv_rows
from stages.runtime.progress import progress

UNIT = "articles"
GROUP = "wikihow"
LICENSE = "CC BY-NC-SA 3.0"

_MAX_TITLE_CHARS = 500  # the longest of wikiHow have some 120
_PRUNED = {  # sections that are not the answer
    "tips", "warnings", "things you'll need", "related wikihows", "related articles", "references", "video",
    "community q&a", "quick summary", "sources and citations",
}  # fmt: skip

_OPENING = re.compile(r"This (?:article|wikiHow)\b")
_CITATION = re.compile(
    r"\s*\[\d{1,3}\]\s*X (?:Research source"
    r"|Trustworthy Source .{1,300}? Go to source"
    r"|Expert Source .{1,200}? Expert Interview\. \d{1,2} [A-Z][a-z]+ \d{4}\.?)"
)
_IMAGE = '{"smallUrl":'
_SUFFIX = re.compile(
    r"\s*(?:[-\u2013|] wikiHow|\(with (?:Pictures|Video|Calculators?)\)|: \d+\+? (?:\w+ ){0,4}Steps)$", re.IGNORECASE
)
_WAYS = re.compile(r"(?:\d+ )?(?:(?:Easy|Simple|Quick|Best|Proven|Effective|and|&) )*Ways to (?=\S)", re.IGNORECASE)
# "How to Tune the Harp2", but not "... a PS4", "... Windows 10" or "... to Mp3"
_METHOD = re.compile(r"(?<=[a-z)'\"!.])(?<![Mm]p)\d$")
_HOW_TO = re.compile(r"how to (?=\S)", re.IGNORECASE)

Step = tuple[str, str]  # (headline, detail)


class _Article(NamedTuple):
    """What a layout says of one article."""

    title: str
    overview: str
    sections: list[tuple[str, list[Step]]]  # (label or "", steps)
    fields: dict[str, str]  # its first row


class Seen:
    """The articles so far, some 300 bytes each: by their titles as given, white space folded, and by their native ids.

    >>> seen = Seen()
    >>> seen.add("... in C"), seen.add("... in C++"), "... in C" in seen.ids
    ('in-C', 'in-C-2', True)
    """

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}  # by title, in the order of the rows
        self._taken: set[str] = set()

    def add(self, title: str) -> str:
        """Give a title its id: its words, numbered where another title has the same."""
        words = re.sub(r"\W+", "-", title).strip("-")
        numbered = (f"{words}-{i}" for i in itertools.count(2))
        id_ = next(id_ for id_ in itertools.chain([words], numbered) if id_ not in self._taken)
        self.ids[title] = id_
        self._taken.add(id_)
        return id_


def files(folder: Path) -> list[Path]:
    """The files of a folder, in the order in which they are read."""
    return sorted(folder.rglob("*.csv"))


def read(path: Path, *, source: str, max_post_chars: int, tally: Tally, seen: Seen) -> Iterator[Candidate]:
    """Yield a row for each article of a file.

    Args:
        path: the file.
        source: key of the source.
        max_post_chars: characters; a longer article is left out.
        tally: counts the articles and what became of them.
        seen: the rows of the files before, which this one's are added to.

    Raises:
        InputError: the file is damaged or of no known layout.
    """
    for article in progress(_articles(path, max_post_chars), desc=path.name, unit="article"):
        tally.n_read += 1
        found = _candidate(article, source=source, seen=seen, max_post_chars=max_post_chars)
        if isinstance(found, Candidate):
            yield found
        else:
            tally.left_out[found] += 1


def clean_title(title: str, *, is_page_title: bool = False) -> str:
    """Return the article's own title, "How to ..."; what is no how-to comes back as it is.

    >>> clean_title("3 Easy Ways to Lay Brick - wikiHow"), clean_title("How to Clean the Harp2")
    ('How to Lay Brick', 'How to Clean the Harp')
    >>> clean_title("How to Boil an Egg: A Guide", is_page_title=True)
    'How to Boil an Egg'
    """
    title, before = " ".join(title.split()), ""
    while title != before:
        title, before = _SUFFIX.sub("", title), title
    if is_page_title:
        title = title.partition(": ")[0]
    title = _METHOD.sub("", title)
    return _HOW_TO.sub("How to ", _WAYS.sub("How to ", title) if _WAYS.match(title) else title)


def address(title: str) -> str:
    """The page of an article, from its own title.

    >>> address("How to Brush a Dog's Teeth"), address("how to knit")
    ('https://www.wikihow.com/Brush-a-Dog%27s-Teeth', 'https://www.wikihow.com/Knit')
    """
    words = "-".join(_HOW_TO.sub("", title, count=1).split())
    return f"https://www.wikihow.com/{quote(words[:1].upper() + words[1:])}"


def _candidate(article: _Article, *, source: str, seen: Seen, max_post_chars: int) -> Candidate | str:
    """Return the row of an article, or why there is none."""
    title = clean_title(article.title[: 2 * _MAX_TITLE_CHARS], is_page_title="paragraph" in article.fields)
    given_title = " ".join(article.title.split())
    if not _HOW_TO.match(title):
        return "that are no how-to"
    if len(title) > _MAX_TITLE_CHARS:
        return f"with a title over {_MAX_TITLE_CHARS} characters"
    if given_title in seen.ids:
        return "with a title seen before"
    if not any(detail for _, steps in article.sections for _, detail in steps):
        return "without text"
    response = _response(article)
    if len(response) > max_post_chars:
        return f"over {max_post_chars:,} characters"
    prompt = title if title.endswith("?") else f"{title}?"
    return Candidate(
        id=f"{source}:{seen.add(given_title)}",
        source=source,
        domain=article.fields.get("category", "").strip() or "wikihow",
        group=GROUP,
        score=None,
        messages=turns(prompt, response),
        url=article.fields.get("url") or address(title),
        author=article.fields.get("author") or None,
        license=article.fields.get("license") or LICENSE,
        title=prompt,
    )


def _response(article: _Article) -> str:
    overview, sections = _split_opening(article)
    parts = [_OPENING.sub("The following answer", overview, count=1) if _OPENING.match(overview) else overview]
    for label, steps in sections:
        listed = "\n".join(f"{i}. {_joined(*step)}" for i, step in enumerate(steps, start=1))
        parts += [f"## {label}" if label else "", listed]
    return paragraphs(*parts)


def _split_opening(article: _Article) -> tuple[str, list[tuple[str, list[Step]]]]:
    """Take a first sentence "This article ..." out of the first step: it opens the answer, not the step."""
    label, steps = article.sections[0]
    headline, detail = steps[0]
    if article.overview or not _OPENING.match(detail):
        return article.overview, article.sections
    sentence, _, rest = detail.partition(". ")
    opening = sentence if sentence.endswith(".") else f"{sentence}."
    return opening, [(label, [(headline, rest), *steps[1:]]), *article.sections[1:]]


def _joined(headline: str, detail: str) -> str:
    """Return one step in one line; a detail that repeats its headline stands alone.

    >>> _joined("Use a lint roller", "Peel it first."), _joined("Use it.", "Use it. Peel it first.")
    ('Use a lint roller. Peel it first.', 'Use it. Peel it first.')
    """
    if detail.startswith(headline) or not headline:
        return detail
    end = "" if headline[-1] in ".!?:" else "."
    return f"{headline}{end} {detail}".strip()


def pruned(text: str) -> str:
    """Return text in one line without image data and citations.

    >>> pruned('Tap the icon {"smallUrl":"a.png"}. Wait.[2] X Research source')
    'Tap the icon. Wait.'
    """
    # folded first, line by line: a pattern that begins with \s* takes quadratic time on a run of white space
    text = "\n".join(folded for line in text.split("\n") if (folded := " ".join(line.split())))
    kept, end = [], 0
    while (at := text.find(_IMAGE, end)) >= 0:
        try:
            after = json.JSONDecoder().raw_decode(text, at)[1]
        except (ValueError, RecursionError):
            break  # cut off: where it ends cannot be told, so it stays
        kept.append(text[end:at].rstrip())
        end = after
    return " ".join(_CITATION.sub("", "".join([*kept, text[end:]])).split())


# --- layouts -----------------------------------------------------------------------------------------------------


def _articles(path: Path, max_post_chars: int) -> Iterator[_Article]:
    header = csv_header(path)
    for columns, layout in _LAYOUTS.items():
        if set(columns) <= set(header):
            return layout((row for _, row in csv_rows(path)), max_post_chars)
    known = "; or ".join(", ".join(columns) for columns in _LAYOUTS)
    got = first_line(", ".join(header) or "none")
    raise InputError(f"{path}: must have the columns {known}, got {got}; correct the origin")


def _whole_articles(rows: Iterable[dict[str, str]], _max_post_chars: int) -> Iterator[_Article]:
    for row in rows:
        headlines = [pruned(line).rstrip(",") for line in row["headline"].split("\n") if line.strip(" ,\r")]
        details = [pruned(part) for part in re.split(r"\n\s*\n[\s,]*|\n\s*,\s*", row["text"]) if part.strip(" ,\r\n")]
        steps = list(itertools.zip_longest(headlines, details, fillvalue=""))
        if len(headlines) != len(details):  # cannot be told apart: the steps, then all that is said of them
            steps = [(headline, "") for headline in headlines] + [("", detail) for detail in details]
        yield _Article(row["title"], "", [("", steps)], row)


def _steps_in_sections(rows: Iterable[dict[str, str]], max_post_chars: int) -> Iterator[_Article]:
    def step(row: dict[str, str]) -> tuple[str, Step] | None:
        label = " ".join(row["sectionLabel"].split())
        if label.lower() in _PRUNED:
            return None
        return label, (pruned(row["headline"]).strip(","), pruned(row["text"]))

    for first, sections in _grouped(rows, step, max_post_chars):
        yield _Article(first["title"], pruned(first["overview"]), sections, first)


def _steps(rows: Iterable[dict[str, str]], max_post_chars: int) -> Iterator[_Article]:
    def step(row: dict[str, str]) -> tuple[str, Step]:
        return "", (pruned(row["heading"]), pruned(row["paragraph"]))

    for first, sections in _grouped(rows, step, max_post_chars):
        yield _Article(first["title"], "", sections, first)


def _grouped(
    rows: Iterable[dict[str, str]], step: Callable[[dict[str, str]], tuple[str, Step] | None], max_post_chars: int
) -> Iterator[tuple[dict[str, str], list[tuple[str, list[Step]]]]]:
    """Yield the first row and the sections of each article, of as many steps as it takes to see that it is too long."""
    for _, group in itertools.groupby(rows, key=lambda row: row["title"]):
        first = next(group)
        sections: dict[str, list[Step]] = {}
        n_chars = 0  # at the least, of the answer
        for row in itertools.chain([first], group):
            if n_chars <= max_post_chars and (found := step(row)):
                label, (headline, detail) = found
                n_chars += max(len(headline), len(detail)) + len("1. ") + (0 if label in sections else len(label))
                sections.setdefault(label, []).append((headline, detail))
        yield first, list(sections.items())


_LAYOUTS: dict[tuple[str, ...], Callable[[Iterable[dict[str, str]], int], Iterator[_Article]]] = {
    ("overview", "headline", "text", "sectionLabel", "title"): _steps_in_sections,
    ("headline", "title", "text"): _whole_articles,
    ("title", "heading", "paragraph"): _steps,
}
