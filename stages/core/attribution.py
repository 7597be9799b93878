"""attribution: say of each row of a training set who wrote it, where it is from and under which licence.

CC BY-SA 4.0 s3(a)(1), and 3.0 s4(c), ask whoever shares adapted material for: the creator's name, the licence with its
address, the material's address, and that it was changed; s3(a)(2) lets a link to a page that says so stand for the
parts it holds. A row names the author of its response; the page behind its link names the asker too. What the dump did
not say is told to be unknown. *Our reading*: Markdown, grouped by licence, with a summary first.
"""

import html
import re

import polars as pl

UNKNOWN = "unknown licence"

_CC = re.compile(r"CC[ -](BY(?:-NC)?(?:-SA|-ND)?)[ -](\d\.\d)", re.IGNORECASE)
_OTHERS = {
    "cc0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "cc0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "apache 2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "mit": "https://opensource.org/license/mit",
    "pddl": "https://opendatacommons.org/licenses/pddl/1-0/",
}
_PEOPLE = {"reddit.com": "https://www.reddit.com/user/{}"}  # site: where its authors are found by their names
_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~])")
_TITLE_CHARS = 120

_HEAD = """# Attribution of the training set {arm}

{n} rows. Changes were made to those from dumps: markup was turned into plain text, links and images were removed, and
title or body was chosen as the prompt. A row's title here is the beginning of its prompt; its author is that of its
response, and the linked page names whoever else had a part. Material under a ShareAlike licence may be shared only
under the same licence or one compatible with it. Rows whose licence is unknown are not cleared for sharing.

| licence | address | rows | authors named | links |
|---|---|---:|---:|---:|
"""


def attribution(rows: pl.DataFrame, *, arm: str) -> str:
    """Write the attribution of a training set (EXAMPLE, sorted by id) as Markdown; all text from data is escaped."""
    by_license = rows.with_columns(pl.col("license").fill_null(UNKNOWN)).sort("license", "id")
    parts = {str(name): part for (name,), part in by_license.group_by("license", maintain_order=True)}
    summary = (
        f"| {escaped(name)} | {license_url(name) or 'none known'} | {len(part):,} | {part['author'].count():,} "
        f"| {part['url'].count():,} |\n"
        for name, part in parts.items()
    )
    sections = (_section(name, part) for name, part in parts.items())
    return _HEAD.format(arm=escaped(arm), n=f"{len(rows):,}") + "".join(summary) + "".join(sections)


def license_url(name: str) -> str | None:
    """The address of a licence's text; None where the name is not that of one we know.

    >>> license_url("CC BY-SA 4.0"), license_url("Free for all")
    ('https://creativecommons.org/licenses/by-sa/4.0/', None)
    """
    if match := _CC.fullmatch(name.strip()):
        return f"https://creativecommons.org/licenses/{match[1].lower()}/{match[2]}/"
    return _OTHERS.get(name.strip().lower())


def escaped(text: str) -> str:
    r"""One line of text in which neither HTML nor Markdown is left.

    >>> escaped("<b>a_b</b>\n| [x](javascript:y)")
    '&lt;b&gt;a\\_b&lt;/b&gt; \\| \\[x\\]\\(javascript:y\\)'
    """
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _MARKS.sub(r"\\\1", html.escape(plain, quote=False))  # a quote's entity has a #, which is a mark


def _section(name: str, rows: pl.DataFrame) -> str:
    url = license_url(name)
    head = f"\n## {escaped(name)}{f' <{url}>' if url else ''}\n\n"
    return head + "".join(f"- {_entry(row)}\n" for row in rows.iter_rows(named=True))


def _entry(row: dict[str, object]) -> str:
    messages = row["messages"]
    first = messages[0]["content"].strip() if isinstance(messages, list) and messages else ""
    title = escaped((first.splitlines() or [""])[0][:_TITLE_CHARS])
    parts = [f"{escaped(str(row['id']))} ({escaped(str(row['source']))}): “{title}”", _author(row), _address(row)]
    return ", ".join([*parts, f"dated {escaped(str(row['created'] or 'unknown'))}"])


def _author(row: dict[str, object]) -> str:
    if row["author"] is None:
        return "author unknown"
    name, url = str(row["author"]), str(row["url"] or "")
    page = next(
        (page for site, page in _PEOPLE.items() if re.match(rf"https?://(?:\w+\.)?{re.escape(site)}/", url)), ""
    )
    known = page and re.fullmatch(r"[\w-]+", name, re.ASCII)
    return f"by {escaped(name)}{f' <{page.format(name)}>' if known else ''}"


def _address(row: dict[str, object]) -> str:
    url = str(row["url"] or "")
    return f"<{url}>" if re.fullmatch(r"https?://[^\s<>\"'`|\\]+", url) else "address unknown"
