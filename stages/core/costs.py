"""costs: what requests cost, in tokens and dollars, before and after they are asked.

Only the endpoint counts tokens, and only afterwards. Before, they are told from bytes:

- at most: a byte-level tokenizer makes no more tokens than there are bytes, beside what the endpoint wraps around them
  (MAX_WRAPPING_TOKENS). What a cap sets aside.
- about: a token for every BYTES_A_TOKEN bytes, on the high side: requests to judge 1,802 real pairs (PandaLM,
  AlpacaEval) have 3.9 to 4.6 bytes a token as a whole by the tokenizers cl100k, o200k, Claude's and DeepSeek's, and
  each alone at least 2.1. Other scripts than Latin take more tokens.
"""

from typing import Annotated, NamedTuple

from pydantic import Field

from stages.common.section import Section

BYTES_A_TOKEN = 3.5
MAX_WRAPPING_TOKENS = 100  # roles, turns, a default system prompt

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(Section):
    """Dollars a million tokens."""

    input: Dollars
    output: Dollars


class Size(NamedTuple):
    """What of a request decides its cost: the bytes sent, the tokens that a reply may have."""

    n_bytes: int
    max_reply_tokens: int


class Estimate(NamedTuple):
    """Of requests together; dollars are None without a price."""

    n_prompt_tokens: int  # about
    max_reply_tokens: int
    low: float | None  # dollars: empty replies
    high: float | None  # dollars: every reply as long as it may be


def dollars(price: Price, *, n_prompt_tokens: int, n_reply_tokens: int) -> float:
    """What counted tokens cost.

    >>> dollars(Price(input=2.5, output=10.0), n_prompt_tokens=1_000, n_reply_tokens=200)
    0.0045
    """
    return (price.input * n_prompt_tokens + price.output * n_reply_tokens) / 1_000_000


def at_most(size: Size, price: Price) -> float:
    """Dollars that no request of that size exceeds."""
    n_prompt_tokens = size.n_bytes + MAX_WRAPPING_TOKENS
    return dollars(price, n_prompt_tokens=n_prompt_tokens, n_reply_tokens=size.max_reply_tokens)


def estimate(sizes: list[Size], price: Price | None) -> Estimate:
    """What requests of these sizes will cost, about."""
    n_prompt_tokens = round(sum(size.n_bytes for size in sizes) / BYTES_A_TOKEN)
    max_reply_tokens = sum(size.max_reply_tokens for size in sizes)
    if price is None:
        return Estimate(n_prompt_tokens, max_reply_tokens, None, None)
    low = dollars(price, n_prompt_tokens=n_prompt_tokens, n_reply_tokens=0)
    return Estimate(n_prompt_tokens, max_reply_tokens, low, low + price.output * max_reply_tokens / 1_000_000)


def told(found: Estimate) -> str:
    """An estimate in words.

    >>> told(Estimate(1_200_000, 600_000, 3.0, 9.0))
    'about 1,200,000 tokens to read, at most 600,000 to write: $3.00 to $9.00'
    """
    tokens = f"about {found.n_prompt_tokens:,} tokens to read, at most {found.max_reply_tokens:,} to write"
    if found.low is None or found.high is None:
        return f"{tokens}: price unknown"
    return f"{tokens}: {money(found.low)} to {money(found.high)}"


def money(amount: float) -> str:
    """Dollars, to the cent, or to four digits where that would say little."""
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"
