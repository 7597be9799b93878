"""A page that shows examples as the model sees them: what carries loss is marked."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: .85rem; font-weight: 600; opacity: .7; margin: 2rem 0 .3rem; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: 0; padding: .8rem 1rem;
      border: 1px solid #8886; border-radius: .5rem; }
mark { background: #2a9d4433; color: inherit; }
"""


class Piece(NamedTuple):
    """A run of tokens as text."""

    text: str
    supervised: bool


def preview_page(title: str, examples: Mapping[str, Sequence[Piece]]) -> str:
    """Write the examples as one self-contained HTML page; all text is escaped.

    Args:
        title: name of the arm.
        examples: heading to the pieces of that example, in order.
    """
    body = "\n".join(
        f"<h2>{escape(heading)}</h2>\n<pre>{''.join(map(_piece, pieces))}</pre>" for heading, pieces in examples.items()
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}: rendered examples</title>\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<style>{_STYLE}</style>\n<h1>{escape(title)}</h1>\n"
        f"<p>As the model reads them. <mark>Marked</mark> tokens carry the loss.</p>\n{body}\n</html>\n"
    )


def _piece(piece: Piece) -> str:
    text = escape(piece.text)
    return f"<mark>{text}</mark>" if piece.supervised else text
