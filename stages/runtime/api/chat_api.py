"""The protocol of OpenAI-compatible endpoints: what is sent, what comes back, what a fault means.

The key is written nowhere: where a server echoes it, "[key]" stands in its place.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from stages.common.errors import JudgeError
from stages.common.files import first_line
from stages.common.section import Section
from stages.core.costs import Price, Size, at_most, dollars
from stages.core.reply import Reply, Unanswered
from stages.core.retry_after import retry_after

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_WAIT_S = 600.0  # a server that asks for a longer pause is as good as out of quota
SECRET_LENGTH = 8  # a shorter key is a placeholder ("EMPTY"), and a word that replies may hold
REFUSALS = ("content_filter", "content_policy_violation")
NOT_CONNECTED = ("ConnectError", "ConnectTimeout", "PoolTimeout")  # of the HTTP library that openai brings
MAY_PASS = (408, 409, 429)  # of the 4xx
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")


class Batch(Section):
    """The Batch API: answers within a day, for less."""

    price_share: Annotated[float, Field(gt=0, le=1)]  # of the prices of single requests
    poll_s: Annotated[float, Field(gt=0)]  # seconds between two looks at a batch


def _variable(name: str) -> str:
    """The name of an environment variable; what may be a key itself is not repeated."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise PydanticCustomError("hidden", "the name of an environment variable in capitals, not a key itself")
    return name


class Endpoint(Section):
    """Where to ask, how patiently, and for how much."""

    base_url: Annotated[str, Field(pattern=r"^https?://")]  # e.g. https://api.openai.com/v1
    model: Annotated[str, Field(min_length=1)]
    api_key_env: (
        Annotated[str, AfterValidator(_variable)] | None
    )  # environment variable that holds the key; null: the server wants none
    concurrency: Annotated[int, Field(ge=1, le=1024)]  # requests under way at once
    timeout_s: Annotated[float, Field(gt=0)]  # of one attempt
    max_attempts: Annotated[int, Field(ge=1, le=20)]  # of one request
    price: Price | None  # null: unknown, which `max_cost: null` alone allows
    max_cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None  # dollars; null: whatever it costs
    batch: Batch | None  # null: requests one by one

    @model_validator(mode="after")
    def _a_cap_has_a_price(self) -> Self:
        if self.price is None and self.max_cost is not None:
            raise ValueError("given a price, without which max_cost cannot hold (`max_cost: null` asks at any cost)")
        return self

    @property
    def account(self) -> str:
        """Whose calls are added up, against max_cost."""
        return f"{self.base_url} {self.model}"

    def price_paid(self) -> Price | None:
        """Dollars a million tokens, a batch's discount included."""
        if self.price is None or self.batch is None:
            return self.price
        share = self.batch.price_share
        return Price(input=self.price.input * share, output=self.price.output * share)

    def cost_of(self, n_prompt_tokens: int | None, n_reply_tokens: int | None) -> float | None:
        """Dollars for counted tokens; None without a price or a count."""
        price = self.price_paid()
        if price is None or n_prompt_tokens is None or n_reply_tokens is None:
            return None
        return dollars(price, n_prompt_tokens=n_prompt_tokens, n_reply_tokens=n_reply_tokens)


class Request(NamedTuple):
    """One question. Equal questions with equal `repeat` are asked once; another `repeat` is another draw.

    A reply that `accept` refuses (it does not parse, say) is not kept: the next run asks for it again.
    """

    messages: list[dict[str, str]]
    sampling: Mapping[str, Any]  # arguments of chat.completions.create: temperature, max_completion_tokens (or
    # max_tokens), which a price needs, response_format, ...
    accept: Callable[[Reply], bool]
    repeat: int = 0

    def arguments(self, endpoint: Endpoint) -> dict[str, Any]:
        """The arguments of chat.completions.create; `extra_body` holds what the protocol has no name for."""
        return {"model": endpoint.model, "messages": self.messages, **self.sampling}

    def body(self, endpoint: Endpoint) -> dict[str, Any]:
        """The JSON object that is sent."""
        body = self.arguments(endpoint)
        extra = body.pop("extra_body", {})
        return {**body, **extra}

    def size(self) -> Size:
        """What decides its cost."""
        n_bytes = len(json.dumps([self.messages, self.sampling.get("response_format")], ensure_ascii=False).encode())
        limits = (self.sampling.get(name) for name in ("max_completion_tokens", "max_tokens"))
        return Size(n_bytes, max((limit for limit in limits if limit is not None), default=0))

    def at_most(self, endpoint: Endpoint) -> float:
        """Dollars that an attempt cannot exceed; 0 where the price is unknown.

        Raises:
            JudgeError: the reply may be of any length, and has a price.
        """
        price, size = endpoint.price_paid(), self.size()
        if price is None:
            return 0.0
        if not size.max_reply_tokens and price.output:
            raise JudgeError(
                f"{endpoint.base_url} ({endpoint.model}): a request with a price needs a limit on its reply, got none; "
                f"set max_completion_tokens"
            )
        return at_most(size, price)


def request_key(request: Request, endpoint: Endpoint) -> str:
    """The hash of all that decides a reply; of the endpoint address and model, not key, patience, price or batch."""
    exact = {
        "base_url": endpoint.base_url,
        "model": endpoint.model,
        "messages": request.messages,
        "sampling": dict(request.sampling),
        "repeat": request.repeat,
    }
    return hashlib.sha256(json.dumps(exact, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


# What vLLM and llama.cpp say, without a code of their own.
_TOO_LONG = re.compile(
    r"maximum context length|exceeds? the (available )?context|max_model_len|prompt is too long", re.I
)


class NoAnswerError(Exception):
    """The server answered 200, but not with a chat completion."""


def read_completion(completion: Any, endpoint: Endpoint) -> Reply:  # noqa: ANN401 - the client checks nothing
    """What a chat completion says.

    Raises:
        NoAnswerError: it is none.
    """
    try:
        choice, usage = completion.choices[0], completion.usage
        return Reply(
            text="" if choice.message.content is None else _text(choice.message.content, endpoint),
            finish_reason=_text(choice.finish_reason, endpoint),
            refusal=None if choice.message.refusal is None else _text(choice.message.refusal, endpoint),
            model=_text(completion.model, endpoint),
            n_prompt_tokens=_count(usage.prompt_tokens) if usage else None,
            n_reply_tokens=_count(usage.completion_tokens) if usage else None,
        )
    except (AttributeError, TypeError, IndexError):
        raise NoAnswerError(f"no chat completion but {hidden(str(completion), endpoint)[:80]!r}") from None


def final(error: Exception, endpoint: Endpoint) -> Unanswered | None:
    """What an error means for its request: unanswered for good, or None: ask again.

    Raises:
        JudgeError: no request can succeed.
    """
    import openai

    if isinstance(error, json.JSONDecodeError | NoAnswerError | TimeoutError | openai.APIConnectionError):
        return None  # includes timeouts
    if isinstance(error, openai.APIResponseValidationError):
        return None
    if not isinstance(error, openai.APIStatusError):
        raise JudgeError(stop(endpoint, error, "the request cannot be made", "correct it and run again")) from error
    if unanswered := fate(error.code, error.status_code, told(error, endpoint)):
        return unanswered
    if error.code in NO_QUOTA:
        raise JudgeError(stop(endpoint, error, "its quota is exhausted", "top it up and run again")) from error
    if (asked_wait(error) or 0) > MAX_WAIT_S:
        raise JudgeError(stop(endpoint, error, "it asks to wait too long", "run again later")) from error
    if error.status_code in MAY_PASS or error.status_code >= 500:
        return None
    key = f"set {endpoint.api_key_env}" if endpoint.api_key_env else "name its key's variable as api_key_env"
    remedy = key if error.status_code in (401, 403) else "correct the annotator or opponent"
    raise JudgeError(stop(endpoint, error, "the request is refused", f"{remedy} and run again")) from error


def fate(code: str | None, status: int, message: str) -> Unanswered | None:
    """What an error says about its request alone: refused, too long, or nothing."""
    if code in REFUSALS:
        return Unanswered("refused", message)
    if code == "context_length_exceeded" or status == 413 or (status == 400 and _TOO_LONG.search(message)):
        return Unanswered("too_long", message)
    return None


def may_be_billed(error: Exception) -> bool:
    """Whether a server may have made an answer that never arrived: not where it said no, or was never reached."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return False
    return type(error.__cause__).__name__ not in NOT_CONNECTED


def stop(endpoint: Endpoint, error: Exception, what: str, remedy: str) -> str:
    """The sentence that ends a run."""
    return (
        f"{endpoint.base_url} ({endpoint.model}): {what}, got {told(error, endpoint)}; {remedy}, finished replies are "
        f"kept"
    )


def told(error: Exception | None, endpoint: Endpoint) -> str:
    """One line about an error. The key is hidden first: a cut could leave the half of it."""
    status = getattr(error, "status_code", None)
    line = first_line(hidden(str(error).strip() or type(error).__name__, endpoint))
    return f"{status} {line}" if status and str(status) not in line[:40] else line


def hidden(text: str, endpoint: Endpoint) -> str:
    """A text without the key."""
    key = _key(endpoint)
    return text.replace(key, "[key]") if key else text


def asked_wait(error: Exception) -> float | None:
    """Seconds that the server asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    return retry_after(headers.get("retry-after"), now=datetime.now(UTC))


def client(endpoint: Endpoint) -> "AsyncOpenAI":
    """A client that leaves retries to us.

    Raises:
        JudgeError: the environment variable for the key is not set, or holds what no HTTP header can.
    """
    from openai import AsyncOpenAI

    key = _key(endpoint) if endpoint.api_key_env else "none"
    if not key:
        raise JudgeError(
            f"{endpoint.base_url}: needs a key in the environment variable {endpoint.api_key_env}, which is not set; "
            f"export it and run again"
        )
    if not (key.isascii() and key.isprintable()):
        raise JudgeError(
            f"{endpoint.base_url}: the key in {endpoint.api_key_env} must be printable ASCII, got other characters; "
            f"export it anew and run again"
        )
    return AsyncOpenAI(api_key=key, base_url=endpoint.base_url, timeout=endpoint.timeout_s, max_retries=0)


def _count(tokens: object) -> int | None:
    """A number of tokens, or None for what is none: the account is the server's to fill, not to empty."""
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 2**31 else None


def _text(value: object, endpoint: Endpoint) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    value = value.encode(errors="replace").decode()  # JSON can spell lone surrogates, which no file can hold
    return value if len(_key(endpoint)) < SECRET_LENGTH else hidden(value, endpoint)


def _key(endpoint: Endpoint) -> str:
    """The key, or "" where there is none."""
    return os.environ.get(endpoint.api_key_env, "").strip() if endpoint.api_key_env else ""
