"""A page that shows examples as the model sees them: what carries loss is marked, special tokens are boxed."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .3rem; }
h2 { font-size: .95rem; margin: 2.2rem 0 .35rem; overflow-wrap: anywhere; }
h2 small { font-weight: 400; opacity: .7; margin-left: .6em; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid #8884; font-weight: 400; }
th:first-child { text-align: left; }
thead th { opacity: .7; font-size: .85rem; vertical-align: bottom; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: 0; padding: .8rem 1rem;
      border: 1px solid #8886; border-radius: .5rem; }
mark { background: #2a9d4333; color: inherit; }
code { font: .75em ui-monospace, monospace; border: 1px solid #8889; border-radius: .3em; padding: .05em .35em;
       margin: 0 .15em; white-space: nowrap; }
.end::after { content: "\\A"; white-space: pre; line-height: 2.2; }
"""


class Piece(NamedTuple):
    """A run of tokens as text."""

    text: str
    supervised: bool
    is_special: bool = False  # one special token, by its name
    ends_turn: bool = False  # the next utterance begins on a line of its own, though no line ends in the text


class Shown(NamedTuple):
    """One example."""

    heading: str
    note: str
    pieces: Sequence[Piece]


def preview_page(title: str, table: Sequence[Sequence[str]], examples: Iterable[Shown]) -> str:
    """Write the examples as one self-contained HTML page; all text is escaped.

    Args:
        title: name of the arm.
        table: rows of a summary, the first of them its head.
        examples: in order.
    """
    body = "\n".join(
        f"<h2>{escape(shown.heading)}<small>{escape(shown.note)}</small></h2>\n"
        f"<pre>{''.join(map(_piece, shown.pieces))}</pre>"
        for shown in examples
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}: rendered examples</title>\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<style>{_STYLE}</style>\n<h1>{escape(title)}: examples as the model reads them</h1>\n"
        f"<p><mark>Marked</mark> tokens carry the loss. <code>Boxed</code>: one special token.</p>\n"
        f"{_table(table)}\n{body}\n</html>\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for tag, cell in zip(tags, row, strict=True)) + "</tr>"
        for row, tags in zip(rows, [["th"] * len(rows[0]), *[["th"] + ["td"] * (len(rows[0]) - 1)] * (len(rows) - 1)],
                             strict=True)
    )  # fmt: skip
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _piece(piece: Piece) -> str:
    text = f"<code>{escape(piece.text)}</code>" if piece.is_special else escape(piece.text)
    text = f"<mark>{text}</mark>" if piece.supervised else text
    return f'<span class="end">{text}</span>' if piece.ends_turn else text
