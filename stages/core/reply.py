"""reply: what comes of a request to an endpoint, whatever it asked."""

from typing import NamedTuple


class Reply(NamedTuple):
    """What an endpoint answered, as it names itself and its reasons."""

    text: str
    finish_reason: str
    refusal: str | None
    model: str
    n_prompt_tokens: int | None
    n_reply_tokens: int | None


class Unanswered(NamedTuple):
    """A request that the endpoint did not answer, and why: refused, too_long, unanswered."""

    unscored_reason: str
    message: str
