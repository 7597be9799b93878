"""One client for every OpenAI-compatible endpoint: bounded, patient, and never paying twice for an answer.

A reply that its caller accepts is kept in .cache/replies.sqlite under the hash of the exact request (base URL, model,
messages, sampling) and the repeat index, outside every DVC out; what failed is never kept. Whatever ends the run, a
kill included, loses no finished reply, and the next run asks only for the rest. Two runs at once keep one reply a
request: the first that was written.

What a fault does:
    401, 403, 404, other 4xx, no quota left     stops the run at once, in one sentence
    429, 408, 409, 5xx, timeout, no or broken answer
                                 waits (Retry-After if given, else longer each time, with jitter) and asks again,
                                 `max_attempts` times; then the request is unanswered. When 10 different requests in
                                 a row (MAX_FAILED) end so, with no answer to any other between them, the run stops;
                                 fewer never stop it, so that a request that always fails blocks no later run
    a content filter's refusal, a request beyond the context      that request is unanswered, with its reason

The key is written nowhere: where a server echoes it, "[key]" stands in its place.
"""

import asyncio
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from stages.core.replies import Reply, Unanswered
from stages.core.retry_after import retry_after
from stages.core.section import Section
from stages.errors import JudgeError
from stages.runtime import files
from stages.runtime.files import first_line
from stages.runtime.progress import bar
from stages.runtime.reply_cache import ReplyCache

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_WAIT_S = 600.0  # a server that asks for a longer pause is as good as out of quota
FIRST_WAIT_S = 0.5
MAX_FAILED = 10  # requests in a row: five prompts that always fail, each judged in both orders, are no dead endpoint
SECRET_LENGTH = 8  # a shorter key is a placeholder ("EMPTY"), and a word that replies may hold
REFUSALS = ("content_filter", "content_policy_violation")
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")


class Endpoint(Section):
    """Where to ask, and how patiently."""

    base_url: Annotated[str, Field(pattern=r"^https?://")]  # e.g. https://api.openai.com/v1
    model: Annotated[str, Field(min_length=1)]
    api_key_env: (
        Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] | None
    )  # environment variable that holds the key; null: the server wants none
    concurrency: Annotated[int, Field(ge=1, le=1024)]  # requests under way at once
    timeout_s: Annotated[float, Field(gt=0)]  # of one attempt
    max_attempts: Annotated[int, Field(ge=1, le=20)]  # of one request


class Request(NamedTuple):
    """One question. Equal questions with equal `repeat` are asked once; another `repeat` is another draw.

    A reply that `accept` refuses (it does not parse, say) is not kept: the next run asks for it again.
    """

    messages: list[dict[str, str]]
    sampling: Mapping[str, Any]  # arguments of chat.completions.create: temperature, max_completion_tokens, ...
    accept: Callable[[Reply], bool]
    repeat: int = 0


def ask(requests: Sequence[Request], endpoint: Endpoint, *, desc: str) -> list[Reply | Unanswered]:
    """Answer every request, from the cache where it has the reply, in the order of `requests`.

    Args:
        requests: what to ask.
        endpoint: whom.
        desc: label of the progress bar.

    Raises:
        JudgeError: the run cannot go on; every reply until then is kept.
    """
    keys = [request_key(request, endpoint) for request in requests]
    with ReplyCache.open(files.CACHE / "replies.sqlite") as cache:
        answers: dict[str, Reply | Unanswered] = {**cache.read(keys)}
        todo = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
        if todo:
            asking = _Asking(endpoint, cache=cache, answers=answers)
            asyncio.run(asking.run(todo, desc=desc))
    return [answers[key] for key in keys]


def request_key(request: Request, endpoint: Endpoint) -> str:
    """The hash of all that decides a reply; of the endpoint address and model, not key, patience or concurrency."""
    exact = {
        "base_url": endpoint.base_url,
        "model": endpoint.model,
        "messages": request.messages,
        "sampling": dict(request.sampling),
        "repeat": request.repeat,
    }
    return hashlib.sha256(json.dumps(exact, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class _Asking:
    """One run over the requests that the cache lacks."""

    def __init__(self, endpoint: Endpoint, *, cache: ReplyCache, answers: dict[str, Reply | Unanswered]) -> None:
        self.endpoint = endpoint
        self.cache = cache
        self.answers = answers
        self.n_failed = 0  # requests in a row that failed every attempt
        self.resume_at = 0.0  # monotonic clock; set by Retry-After for all workers
        self.fault: JudgeError | None = None
        self.stopped = asyncio.Event()  # set with `fault`: nobody sleeps on

    async def run(self, todo: Mapping[str, Request], *, desc: str) -> None:
        """Ask with `concurrency` workers. After a fault they finish what is under way, which is paid for, and stop."""
        queue = iter(todo.items())
        n_workers = min(self.endpoint.concurrency, len(todo))
        with bar(desc=desc, total=len(todo), unit="reply") as progress:
            async with _client(self.endpoint) as client, asyncio.TaskGroup() as group:
                for _ in range(n_workers):
                    group.create_task(self._work(client, queue, progress.update))
        if self.fault:
            raise self.fault

    async def _work(
        self, client: "AsyncOpenAI", queue: Iterator[tuple[str, Request]], advance: Callable[[], object]
    ) -> None:
        for key, request in queue:
            try:
                answer = await self._answer(client, request)
                if isinstance(answer, Reply) and request.accept(answer):
                    answer = self.cache.write(key, answer)
            except JudgeError as error:
                self.fault = self.fault or error
                self.stopped.set()
            else:
                self.answers[key] = answer
                advance()
            if self.fault:
                return

    async def _answer(self, client: "AsyncOpenAI", request: Request) -> Reply | Unanswered:
        error: Exception | None = None
        for attempt in range(self.endpoint.max_attempts):
            await self._pause(error, attempt)
            if self.fault:
                raise self.fault
            try:
                reply = await _attempt(client, self.endpoint, request)
            except Exception as fault:
                unanswered = _final(fault, self.endpoint)
                if unanswered:
                    self.n_failed = 0
                    return unanswered
                error = fault
            else:
                self.n_failed = 0
                return reply
        self.n_failed += 1
        told = _told(error, self.endpoint)
        if self.n_failed >= MAX_FAILED:
            raise JudgeError(
                f"{self.endpoint.base_url}: gives no answer to {self.n_failed} requests in a row, "
                f"{self.endpoint.max_attempts} attempts each, last {told}; run again when it is well, finished replies "
                f"are kept"
            ) from error
        return Unanswered("unanswered", told)

    async def _pause(self, error: Exception | None, attempt: int) -> None:
        if error is not None:
            wait = _retry_after(error)
            if wait is not None:
                self.resume_at = max(self.resume_at, time.monotonic() + wait)
            else:
                longest = min(60.0, FIRST_WAIT_S * 2 ** (attempt - 1))
                await self._sleep(longest * _jitter(0.5, 1.0))
        while (left := self.resume_at - time.monotonic()) > 0 and not self.fault:
            await self._sleep(left * _jitter(1.0, 1.1))

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)


async def _attempt(client: "AsyncOpenAI", endpoint: Endpoint, request: Request) -> Reply:
    arguments: Any = {"model": endpoint.model, "messages": request.messages, **request.sampling}
    completion = await client.chat.completions.create(**arguments)
    try:
        choice, usage = completion.choices[0], completion.usage
        return Reply(
            text="" if choice.message.content is None else _text(choice.message.content, endpoint),
            finish_reason=_text(choice.finish_reason, endpoint),
            refusal=None if choice.message.refusal is None else _text(choice.message.refusal, endpoint),
            model=_text(completion.model, endpoint),
            n_prompt_tokens=usage.prompt_tokens if usage else None,
            n_reply_tokens=usage.completion_tokens if usage else None,
        )
    except (AttributeError, TypeError, IndexError):  # the client does not check what a server sends
        raise _NoAnswerError(f"no chat completion but {_hidden(str(completion), endpoint)[:80]!r}") from None


def _text(value: object, endpoint: Endpoint) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value if len(_key(endpoint)) < SECRET_LENGTH else _hidden(value, endpoint)


class _NoAnswerError(Exception):
    """The server answered 200, but not with a chat completion."""


def _final(error: Exception, endpoint: Endpoint) -> Unanswered | None:
    """What an error means for its request: unanswered for good, or None: ask again.

    Raises:
        JudgeError: no request can succeed.
    """
    import openai

    if isinstance(error, json.JSONDecodeError | _NoAnswerError | openai.APIConnectionError):
        return None  # includes timeouts
    if isinstance(error, openai.APIResponseValidationError):
        return None
    if not isinstance(error, openai.APIStatusError):
        raise JudgeError(_stop(endpoint, error, "the request cannot be made", "correct it and run again")) from error
    if error.code in REFUSALS:
        return Unanswered("refused", _told(error, endpoint))
    if error.code == "context_length_exceeded" or error.status_code == 413:
        return Unanswered("too_long", _told(error, endpoint))
    if error.code in NO_QUOTA:
        raise JudgeError(_stop(endpoint, error, "its quota is exhausted", "top it up and run again")) from error
    if (_retry_after(error) or 0) > MAX_WAIT_S:
        raise JudgeError(_stop(endpoint, error, "it asks to wait too long", "run again later")) from error
    if error.status_code in (408, 409, 429) or error.status_code >= 500:
        return None
    remedy = f"set {endpoint.api_key_env}" if error.status_code in (401, 403) else "correct the annotator or opponent"
    raise JudgeError(_stop(endpoint, error, "the request is refused", f"{remedy} and run again")) from error


def _stop(endpoint: Endpoint, error: Exception, what: str, remedy: str) -> str:
    told = _told(error, endpoint)
    return f"{endpoint.base_url} ({endpoint.model}): {what}, got {told}; {remedy}, finished replies are kept"


def _told(error: Exception | None, endpoint: Endpoint) -> str:
    """One line about an error. The key is hidden first: a cut could leave the half of it."""
    status = getattr(error, "status_code", None)
    line = first_line(_hidden(str(error).strip() or type(error).__name__, endpoint))
    return f"{status} {line}" if status and str(status) not in line[:40] else line


def _hidden(text: str, endpoint: Endpoint) -> str:
    key = _key(endpoint)
    return text.replace(key, "[key]") if key else text


def _key(endpoint: Endpoint) -> str:
    """The key, or "" where there is none."""
    return os.environ.get(endpoint.api_key_env, "").strip() if endpoint.api_key_env else ""


def _retry_after(error: Exception) -> float | None:
    """Seconds that the server asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    return retry_after(headers.get("retry-after"), now=datetime.now(UTC))


def _client(endpoint: Endpoint) -> "AsyncOpenAI":
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


def _jitter(low: float, high: float) -> float:
    """A factor that keeps workers from asking in step; it reaches no artifact."""
    return secrets.SystemRandom().uniform(low, high)
