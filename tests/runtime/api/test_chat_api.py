"""What a server says of itself is not believed where it cannot be so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from stages.core.reply import Unanswered
from stages.runtime.api.chat_api import Endpoint, fate, read_completion

ENDPOINT = Endpoint(
    base_url="http://127.0.0.1:1/v1", model="judge", api_key_env=None, concurrency=1, timeout_s=1.0, max_attempts=1,
    price=None, max_cost=None, batch=None,
)  # fmt: skip


def completion(text: str = "VERDICT: A", *, prompt_tokens: Any = 3, completion_tokens: Any = 2) -> Any:
    message = SimpleNamespace(content=text, refusal=None)
    usage = SimpleNamespace(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    choice = SimpleNamespace(message=message, finish_reason="stop")
    return SimpleNamespace(choices=[choice], usage=usage, model="judge")


def test_a_lone_surrogate_is_a_reply_that_a_file_can_hold() -> None:
    assert read_completion(completion("VERDICT: A \ud83d"), ENDPOINT).text.encode() == b"VERDICT: A ?"


@pytest.mark.parametrize("tokens", [-5_000_000, "12", 2**40, True, 1.5, None])
def test_a_count_of_tokens_that_cannot_be_is_unknown(tokens: Any) -> None:
    reply = read_completion(completion(prompt_tokens=tokens, completion_tokens=tokens), ENDPOINT)
    assert (reply.n_prompt_tokens, reply.n_reply_tokens) == (None, None)
    assert read_completion(completion(), ENDPOINT)[-2:] == (3, 2)


@pytest.mark.parametrize("pasted", ["sk-proj-SECRETSECRET", "gsk_SECRETSECRET", "hf_SECRET", "A" * 80])
def test_a_key_in_place_of_its_variable_is_not_repeated(pasted: str) -> None:
    values = {**ENDPOINT.model_dump(), "api_key_env": pasted}
    with pytest.raises(ValidationError) as caught:
        Endpoint.model_validate(values)
    (fault,) = caught.value.errors()
    assert fault["type"] == "hidden"
    assert pasted not in fault["msg"]


def test_a_request_beyond_the_context_is_known_by_what_servers_say() -> None:
    said = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
    assert fate("400", 400, said) == Unanswered("too_long", said)
    assert fate("400", 400, "no such parameter") is None
    assert fate(None, 500, said) is None
