"""What requests cost, before and after."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.costs import Price, Size, at_most, dollars, estimate, money, told

PRICE = Price(input=2.5, output=10.0)


def test_a_million_tokens_each_way_cost_their_prices() -> None:
    assert dollars(PRICE, n_prompt_tokens=1_000_000, n_reply_tokens=1_000_000) == 12.5


def test_an_estimate_by_hand() -> None:
    found = estimate([Size(3_500_000, 100), Size(3_500_000, 200)], PRICE)
    assert found == (2_000_000, 300, 5.0, pytest.approx(5.003))
    assert told(found) == "about 2,000,000 tokens to read, at most 300 to write: $5.00 to $5.00"


def test_without_a_price_tokens_are_told_alone() -> None:
    assert told(estimate([Size(7, 5)], None)) == "about 2 tokens to read, at most 5 to write: price unknown"


TOKENIZERS: dict[str, Callable[[bytes], int]] = {"a byte each": len, "pairs": lambda data: -(-len(data) // 2)}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(max_size=200), n_reply=st.integers(0, 50))
def test_no_byte_level_tokenizer_goes_beyond_what_is_set_aside(name: str, text: str, n_reply: int) -> None:
    data = text.encode()
    n_prompt = TOKENIZERS[name](data) + 90  # wrapped in turns
    assert dollars(PRICE, n_prompt_tokens=n_prompt, n_reply_tokens=n_reply) <= at_most(Size(len(data), 50), PRICE)


@pytest.mark.parametrize(("amount", "text"), [(0, "$0.00"), (0.0042, "$0.0042"), (1, "$1.00"), (1234.5, "$1,234.50")])
def test_money(amount: float, text: str) -> None:
    assert money(amount) == text
