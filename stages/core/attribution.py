"""attribution: say of each row of a training set who wrote it, where it is from and under which licence.

CC BY-SA 4.0 s3(a)(1), and 3.0 s4(c), ask whoever shares adapted material for: the creator's name, the licence with its
address, the material's address, and that it was changed. A row of several hands names them all, its response's first,
and has the licences of all its parts. Where a site asks to be named for its many authors, it is. What the dump did not
say is told to be unknown. *Our reading*: Markdown, grouped by licence, with a summary first.
"""

import html
import re
from collections.abc import Mapping

import polars as pl

UNKNOWN = "unknown licence"

_CC = re.compile(r"CC[ -](BY(?:-NC)?(?:-SA|-ND)?)[ -](\d\.\d)", re.IGNORECASE)
_BETWEEN = re.compile(r"[;,]\s*")  # of several licences of one row
_OTHERS = {
    "cc0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "cc0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "apache 2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "mit": "https://opensource.org/license/mit",
    "pddl": "https://opendatacommons.org/licenses/pddl/1-0/",
}
_PEOPLE = {"reddit.com": "https://www.reddit.com/user/{}"}  # site: where its authors are found by their names
_CONTRIBUTORS = {"wikihow.com": "the contributors to wikiHow"}  # site: who wrote what it publishes without names
_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~])")
_TITLE_CHARS = 120

_HEAD = """# Attribution of the training set {arm}

{n} rows. Changes were made to those from dumps: markup was turned into plain text; links, images, citations and
sections that are no part of the answer were removed; title or body was chosen as the prompt; openings were reworded;
and what is longer than a model reads is cut when it is trained on. A row's title here is the beginning of its prompt.
It names the author of its response, then those of its prompt and of further turns, as far as the dump does; the linked
page names whoever else had a part. A row under several licences has parts under each. Material under a ShareAlike
licence may be shared only under the same licence or one compatible with it. Rows whose licence is unknown are not
cleared for sharing.

| licence | address | rows | authors named | links |
|---|---|---:|---:|---:|
"""


def attribution(rows: pl.DataFrame, *, arm: str) -> str:
    """Write the attribution of a training set (EXAMPLE, sorted by id) as Markdown; all text from data is escaped."""
    by_license = rows.with_columns(pl.col("license").fill_null(UNKNOWN)).sort("license", "id")
    parts = {str(name): part for (name,), part in by_license.group_by("license", maintain_order=True)}
    summary = (
        f"| {escaped(name)} | {' '.join(license_urls(name)) or 'none known'} | {len(part):,} | {_n_authors(part):,} "
        f"| {part['url'].count():,} |\n"
        for name, part in parts.items()
    )
    sections = (_section(name, part) for name, part in parts.items())
    return _HEAD.format(arm=escaped(arm), n=f"{len(rows):,}") + "".join(summary) + "".join(sections)


def license_urls(names: str) -> list[str]:
    """The addresses of the licences in a text that names one or several; without those that we do not know.

    >>> license_urls("CC BY-SA 4.0; MIT")
    ['https://creativecommons.org/licenses/by-sa/4.0/', 'https://opensource.org/license/mit']
    """
    found = (_license_url(name.strip()) for name in _BETWEEN.split(names))
    return [url for url in dict.fromkeys(found) if url]


def _license_url(name: str) -> str | None:
    if match := _CC.fullmatch(name):
        return f"https://creativecommons.org/licenses/{match[1].lower()}/{match[2]}/"
    return _OTHERS.get(name.lower())


def escaped(text: str) -> str:
    r"""One line of text in which neither HTML nor Markdown is left.

    >>> escaped("<b>a_b</b>\n| [x](javascript:y)")
    '&lt;b&gt;a\\_b&lt;/b&gt; \\| \\[x\\]\\(javascript:y\\)'
    """
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _MARKS.sub(r"\\\1", html.escape(plain, quote=False))  # a quote's entity has a #, which is a mark


def _section(name: str, rows: pl.DataFrame) -> str:
    head = f"\n## {escaped(name)}{''.join(f' <{url}>' for url in license_urls(name))}\n\n"
    return head + "".join(f"- {_entry(row)}\n" for row in rows.iter_rows(named=True))


def _entry(row: dict[str, object]) -> str:
    messages = row["messages"]
    first = messages[0]["content"].strip() if isinstance(messages, list) and messages else ""
    title = escaped((first.splitlines() or [""])[0][:_TITLE_CHARS])
    parts = [f"{escaped(str(row['id']))} ({escaped(str(row['source']))}): “{title}”", _author(row), _address(row)]
    return ", ".join([*parts, f"dated {escaped(str(row['created'] or 'unknown'))}"])


def _author(row: dict[str, object]) -> str:
    url = str(row["url"] or "")
    if row["author"] is None:
        contributors = _of_site(_CONTRIBUTORS, url)
        return f"by {contributors}" if contributors else "author unknown"
    name, page = str(row["author"]), _of_site(_PEOPLE, url)
    known = page and re.fullmatch(r"[\w-]+", name, re.ASCII)
    return f"by {escaped(name)}{f' <{page.format(name)}>' if known else ''}"


def _of_site(table: Mapping[str, str], url: str) -> str:
    found = (value for site, value in table.items() if re.match(rf"https?://(?:\w+\.)?{re.escape(site)}/", url))
    return next(found, "")


def _n_authors(rows: pl.DataFrame) -> int:
    return sum(_author(row) != "author unknown" for row in rows.select("author", "url").iter_rows(named=True))


def _address(row: dict[str, object]) -> str:
    url = str(row["url"] or "")
    return f"<{url}>" if re.fullmatch(r"https?://[^\s<>\"'`|\\]+", url) else "address unknown"
