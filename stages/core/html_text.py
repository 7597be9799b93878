"""html_text: HTML of a post to plain text, by the rule that LIMA's release shows.

Code is fenced and verbatim, lists keep bullets and numbers (nested too), quotes get "> ", LaTeX stays, entities are
decoded once; links, images, emphasis and every other tag go and leave their bare text; text that is hard-wrapped
inside a paragraph is joined again, paragraphs are parted by an empty line. LIMA s2.1 says "links, images and all HTML
go, except code blocks and lists"; the rest is read off the released rows.

Our reading: inline code keeps its backticks; a short superscript becomes `^x`, since 10<sup>2</sup> is not 102;
the cells of a table row are parted by " | "; what is struck out stays, as bare text.

Broken HTML is taken as a browser takes it: an end tag without its start is nothing, what is open at the end is closed.
Time is linear in the length of the input, whatever it holds.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

# A comment, a declaration, a tag with quotes that match, or else anything from < to the next > that begins like a tag.
# Its five groups: "/" and name and attributes of the third kind, "/" and name of the fourth.
_TOKEN = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<[!?][^<>]*+>"
    r"""|<(/?)([a-zA-Z][a-zA-Z0-9]*+)((?:[^<>"']|"[^"<]*+"|'[^'<]*+')*+)>"""
    r"|<(/?)([a-zA-Z][a-zA-Z0-9]*+)[^<>]*+>",
    re.DOTALL,
)
_START = re.compile(r"""\bstart\s*=\s*["']?(\d{1,6})""")
_DISPLAY_MATH = re.compile(r"(\$\$.+?\$\$)", re.DOTALL)
_EXPONENT = re.compile(r"(?<=[\w)\]}])<sup>([-+\u2212]?\d+|[a-z])</sup>")  # but not 1<sup>st</sup>

_LISTS = {"ul", "ol"}
_BLOCKS = {
    "address", "article", "aside", "center", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption", "figure",
    "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "p", "section", "summary",
    "table", "tbody", "tfoot", "thead", "tr",
}  # fmt: skip
_UNSEEN = {"script", "style", "template", "title"}  # their text is not for readers
_HEEDED = _LISTS | _BLOCKS | _UNSEEN | {"br", "blockquote", "code", "li", "pre", "td", "th"}  # others leave their text
_MAX_DEPTH = 16  # containers inside each other; deeper ones are dissolved, as no person wrote them


def html_to_text(source: str) -> str:
    """Return the text of an HTML fragment, without white space at its ends.

    >>> print(html_to_text("<p>Two things:</p><ol><li>salt<li>a <a href='#'>hot &amp; clean</a> pan</ol>"))
    Two things:
    <BLANKLINE>
    1. salt
    2. a hot & clean pan
    """
    builder = _Builder()
    if "<sup>" in source:
        source = _EXPONENT.sub(r"^\1", source)
    first, *rest = _TOKEN.split(source)
    if first:
        builder.text(first)
    parts = iter(rest)
    for end, name, attributes, end_, name_, text in zip(parts, parts, parts, parts, parts, parts, strict=True):
        tag = (name or name_ or "").lower()
        if tag in _HEEDED:
            if end or end_:
                builder.end(tag)
            else:
                builder.start(tag, attributes or "")
        if text:
            builder.text(text)
    return builder.finish()


@dataclass(slots=True)
class _Container:
    """An open element that holds blocks: the whole text, a quote, a list or an item."""

    name: str  # "", blockquote, ul, ol, li
    blocks: list[tuple[str, list[str]]] = field(default_factory=list)  # (name, lines)
    number: int = 1  # of the next item of an ol


class _Builder:
    """Turns tags and text into blocks of lines; containers close into blocks of the container around them."""

    def __init__(self) -> None:
        self.open = [_Container("")]
        self.inline: list[str] = []  # text of the paragraph that is being read
        self.code: list[str] | None = None  # text of an open <pre>
        self.span: list[str] | None = None  # text of an open <code>
        self.unseen = ""  # the open element whose text is dropped
        self.n_cells = 0  # of the table row that is being read

    def start(self, name: str, attributes: str) -> None:
        if self.unseen:
            return
        if self.code is not None:
            if name == "br":
                self.code.append("\n")
        elif name == "br":
            (self.inline if self.span is None else self.span).append("\n")
        elif name == "code":
            self._end_span()
            self.span = []
        elif name == "pre":
            self._end_paragraph()
            self.code = []
        elif name in _LISTS or name == "blockquote":
            self._open(name, attributes)
        elif name == "li":
            self._end_paragraph()
            self._close_to({"li"}, within=_LISTS)
            self._open("li", "")
        elif name in ("td", "th"):
            self._end_span()
            self.inline += [" | "] if self.n_cells else []
            self.n_cells += 1
        elif name in _BLOCKS:
            self._end_paragraph()
        elif name in _UNSEEN:
            self.unseen = name

    def end(self, name: str) -> None:
        if self.unseen:
            self.unseen = "" if name == self.unseen else self.unseen
        elif self.code is not None:
            if name == "pre":
                self._end_code()
        elif name == "code":
            self._end_span()
        elif name == "li":
            self._end_paragraph()
            self._close_to({"li"}, within=_LISTS)
        elif name in _LISTS or name == "blockquote":
            self._end_paragraph()
            self._close_to({name}, within=set())
        elif name in _BLOCKS:
            self._end_paragraph()

    def text(self, text: str) -> None:
        if self.unseen:
            return
        if "&" in text:
            text = html.unescape(text)
        if self.code is not None:
            self.code.append(text)
        elif self.span is not None:
            self.span.append(text)
        elif "$$" in text:
            parts = _DISPLAY_MATH.split(text)
            self.inline += [_folded(part) if i % 2 == 0 else part for i, part in enumerate(parts)]
        elif self.inline or not text.isspace():  # a paragraph does not begin with space
            self.inline.append(_folded(text))

    def finish(self) -> str:
        self._end_code()
        self._end_paragraph()
        while len(self.open) > 1:
            self._close()
        return "\n".join(_joined(self.open[0].blocks)).strip()

    def _open(self, name: str, attributes: str) -> None:
        self._end_paragraph()
        if len(self.open) > _MAX_DEPTH:
            return
        start = _START.search(attributes) if name == "ol" else None
        self.open.append(_Container(name, number=int(start[1]) if start else 1))

    def _close_to(self, names: set[str], *, within: set[str]) -> None:
        """Close the innermost container of these names and all inside it, unless one of `within` stands between."""
        for depth in range(len(self.open) - 1, 0, -1):
            if self.open[depth].name in names:
                while len(self.open) > depth:
                    self._close()
                return
            if self.open[depth].name in within:
                return

    def _close(self) -> None:
        container = self.open.pop()
        if not container.blocks:
            return
        outer = self.open[-1]
        if container.name == "blockquote":
            lines = [f"> {line}" if line else ">" for line in _joined(container.blocks)]
        elif container.name == "li":
            marker = f"{outer.number}. " if outer.name == "ol" else "* "
            outer.number += 1
            lines = _indented(_joined(container.blocks, tight=True), marker)
        else:
            parts = [part if name == "li" else _indented(part, "  ") for name, part in container.blocks]
            lines = [line for part in parts for line in part]
        outer.blocks.append((container.name, lines))

    def _end_paragraph(self) -> None:
        if self.span is not None:
            self._end_span()
        name, inline = "tr" if self.n_cells else "p", self.inline
        self.inline, self.n_cells = [], 0
        if not inline:
            return
        joined = _single_spaced(inline) if len(inline) > 1 else inline[0]
        if "\n" not in joined:
            if line := joined.strip():
                self.open[-1].blocks.append((name, [line]))
            return
        lines = [line.strip() for line in joined.strip().split("\n")]
        if lines != [""]:
            self.open[-1].blocks.append((name, [line for i, line in enumerate(lines) if line or lines[i - 1]]))

    def _end_span(self) -> None:
        """Put an inline code back into its paragraph, between backticks."""
        if self.span is None:
            return
        code = " ".join("".join(self.span).split("\n")).strip()
        self.span = None
        if code:
            fence = "`" * (_longest_run(code) + 1)
            pad = " " if "`" in code else ""
            self.inline.append(f"{fence}{pad}{code}{pad}{fence}")

    def _end_code(self) -> None:
        if self.code is None:
            return
        code = "".join(self.code).replace("\r\n", "\n").removeprefix("\n").rstrip()
        self.code = None
        if code:
            fence = "`" * max(3, _longest_run(code) + 1)
            self.open[-1].blocks.append(("pre", [fence, *code.split("\n"), fence]))


def _joined(blocks: list[tuple[str, list[str]]], *, tight: bool = False) -> list[str]:
    """Put blocks below each other, an empty line between them; if tight, none before a list."""
    lines: list[str] = []
    for (last, _), (name, block) in zip([("", []), *blocks], blocks, strict=False):
        together = (tight and name in _LISTS) or (name == last and name in ("li", "tr"))
        lines += block if together or not lines else ["", *block]
    return lines


def _indented(lines: list[str], marker: str) -> list[str]:
    """Put the marker before the first line and as many spaces before the others."""
    pad = " " * len(marker)
    return [(marker if i == 0 else pad) + line if line else "" for i, line in enumerate(lines)]


def _folded(text: str) -> str:
    r"""Return text with each run of white space as one space.

    >>> _folded(" a\n  b"), _folded("\n\n")
    (' a b', ' ')
    """
    folded = " ".join(text.split())
    if not folded:
        return " " if text else ""
    return f"{' ' if text[0].isspace() else ''}{folded}{' ' if text[-1].isspace() else ''}"


def _single_spaced(parts: list[str]) -> str:
    """Join parts so that two spaces that meet become one."""
    kept: list[str] = []
    for part in parts:
        piece = part.removeprefix(" ") if kept and kept[-1].endswith((" ", "\n")) else part
        kept += [piece] if piece else []
    return "".join(kept)


def _longest_run(code: str) -> int:
    """Return the length of the longest run of backticks.

    >>> _longest_run("a `b` ``c"), _longest_run("a")
    (2, 0)
    """
    return max((len(run) for run in re.findall("`+", code)), default=0)
