"""reference: compare an answer with the answers that are known to be right.

An answer is RIGHT if, without the white space around it, it equals an accepted value and the model ended it by itself;
CONTAINS if an accepted value stands in it as whole words, whatever the letter case and without a closing stop (so a
right answer in other words, that runs on or is cut off); else WRONG.
An answer that ended with `eos` counts as ended: an untuned model has never seen the end-of-turn token, and refusing
its own token would hand every comparison with it to the tuned one. The measure is ours: LIMA has no checkable answers,
arXiv:2305.15717 says why one should.
"""

import re
from collections.abc import Sequence
from enum import IntEnum

from stages.common.errors import InputError

FINISHED = ("eot", "eos", "stop", "given")  # every finish_reason of schema.RESPONSE but "length" and "refused"


class Match(IntEnum):
    """How an answer stands to the accepted values; the higher is preferred."""

    WRONG = 0
    CONTAINS = 1
    RIGHT = 2


def match(response: str, references: Sequence[str], *, finish_reason: str) -> Match:
    """Compare an answer with its accepted values.

    >>> match(" Vola. ", ["Vola", "Vola."], finish_reason="eot")
    <Match.RIGHT: 2>
    >>> match("Vola. And then", ["Vola"], finish_reason="length")
    <Match.CONTAINS: 1>
    >>> match("Volare", ["Vola"], finish_reason="eot")
    <Match.WRONG: 0>
    """
    values = [value.strip() for value in references]
    if is_finished(finish_reason) and response.strip() in values:
        return Match.RIGHT
    return Match.CONTAINS if any(_stands_in(value, response) for value in values) else Match.WRONG


def is_finished(finish_reason: str) -> bool:
    """Whether the model ended its answer by itself."""
    return finish_reason in FINISHED


def check_references(prompt_id: str, references: Sequence[str] | None) -> Sequence[str]:
    """The accepted values of a prompt, empty where none is known.

    Raises:
        InputError: a value is blank: every empty answer would be right.
    """
    if any(value is None or not value.strip() for value in references or ()):
        raise InputError(f"{prompt_id}: a reference must not be blank, got {references!r}; correct it in its source")
    return references or ()


def _stands_in(value: str, text: str) -> bool:
    bare = value.rstrip(".!?").casefold()
    return bool(bare) and re.search(rf"(?<!\w){re.escape(bare)}(?!\w)", text.casefold()) is not None
