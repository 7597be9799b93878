"""Requests asked one by one, many at once."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stages.common.errors import JudgeError
from stages.core.reply import Reply, Unanswered
from stages.runtime.api.budget import Budget
from stages.runtime.api.chat_api import (
    Endpoint,
    Request,
    asked_wait,
    client,
    final,
    may_be_billed,
    read_completion,
    told,
)
from stages.runtime.api.reply_cache import ReplyCache
from stages.runtime.progress import bar

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FIRST_WAIT_S = 0.5
MAX_FAILED = 10  # requests in a row: five prompts that always fail, each judged in both orders, are no dead endpoint
POLL_S = 0.25  # between two looks at what another run asks for

Answers = dict[str, Reply | Unanswered]  # by request key


def ask_live(
    todo: Mapping[str, Request], endpoint: Endpoint, *, cache: ReplyCache, answers: Answers, desc: str
) -> float:
    """Ask for all of `todo` and put what comes into `answers`; gives the dollars that it cost.

    Raises:
        JudgeError: the run cannot go on; every reply until then is kept.
    """
    asking = _Asking(endpoint, cache=cache, answers=answers, todo=todo)
    asyncio.run(asking.run(desc=desc))
    return asking.budget.paid


class _Asking:
    """One run over the requests that the cache lacks."""

    def __init__(self, endpoint: Endpoint, *, cache: ReplyCache, answers: Answers, todo: Mapping[str, Request]) -> None:
        self.endpoint = endpoint
        self.cache = cache
        self.answers = answers
        self.todo = deque(todo.items())
        self.taken: dict[str, Request] = {}  # another run asks for these
        self.budget = Budget(endpoint, cache)
        self.n_failed = 0  # requests in a row that failed every attempt
        self.resume_at = 0.0  # monotonic clock; set by Retry-After for all workers
        self.look_at = 0.0  # monotonic clock; when to look next at what is taken
        self.fault: JudgeError | None = None
        self.stopped = asyncio.Event()  # set with `fault`: nobody sleeps on

    async def run(self, *, desc: str) -> None:
        """Ask with `concurrency` workers. After a fault they finish what is under way, which is paid for, and stop."""
        n_workers = min(self.endpoint.concurrency, len(self.todo))
        with bar(desc=desc, total=len(self.todo), unit="reply") as progress:
            async with client(self.endpoint) as asked, asyncio.TaskGroup() as group:
                for _ in range(n_workers):
                    group.create_task(self._work(asked, progress.update))
        if self.fault:
            raise self.fault

    async def _work(self, asked: "AsyncOpenAI", advance: Callable[[], object]) -> None:
        while not self.fault and (self.todo or self.taken):
            if not self.todo:
                await self._sleep(POLL_S)
                self._take_over()
                continue
            key, request = self.todo.popleft()
            try:
                answer = await self._one(asked, key, request)
            except JudgeError as error:
                self.fault = self.fault or error
                self.stopped.set()
            else:
                if answer is not None:
                    self.answers[key] = answer
                    advance()

    def _take_over(self) -> None:
        """Whatever nobody asks for any more is ours to look at: the reply is there, or its asker has gone."""
        if self.todo or time.monotonic() < self.look_at:
            return
        self.look_at = time.monotonic() + POLL_S  # one worker looks for all
        for key in self.cache.free(list(self.taken)):
            self.todo.append((key, self.taken.pop(key)))

    async def _one(self, asked: "AsyncOpenAI", key: str, request: Request) -> Reply | Unanswered | None:
        """The answer; None: another run is at it."""
        state = self.cache.claim(key)
        if isinstance(state, Reply):
            return state
        if state == "taken":
            self.taken[key] = request
            return None
        kept: Reply | None = None
        try:
            answer = await self._answer(asked, request)
            kept = answer if isinstance(answer, Reply) and request.accept(answer) else None
        finally:
            first = self.cache.finish(key, kept)
        return first or answer

    async def _answer(self, asked: "AsyncOpenAI", request: Request) -> Reply | Unanswered:
        error: Exception | None = None
        aside = request.at_most(self.endpoint)
        for attempt in range(self.endpoint.max_attempts):
            await self._pause(error, attempt)
            await self.budget.wait_for(aside, self.stopped)
            if self.fault:
                raise self.fault
            try:
                arguments: Any = request.arguments(self.endpoint)
                async with asyncio.timeout(self.endpoint.timeout_s):  # the client's own is between two bytes
                    reply = read_completion(await asked.chat.completions.create(**arguments), self.endpoint)
            except Exception as fault:
                self.budget.settle(aside, None if may_be_billed(fault) else 0.0)
                unanswered = final(fault, self.endpoint)
                if unanswered:
                    self.n_failed = 0
                    return unanswered
                error = fault
            else:
                self.budget.settle_reply(aside, reply)
                self.n_failed = 0
                return reply
        self.n_failed += 1
        line = told(error, self.endpoint)
        if self.n_failed >= MAX_FAILED:
            raise JudgeError(
                f"{self.endpoint.base_url}: gives no answer to {self.n_failed} requests in a row, "
                f"{self.endpoint.max_attempts} attempts each, last {line}; run again when it is well, finished replies "
                f"are kept"
            ) from error
        return Unanswered("unanswered", line)

    async def _pause(self, error: Exception | None, attempt: int) -> None:
        if error is not None:
            wait = asked_wait(error)
            if wait:
                self.resume_at = max(self.resume_at, time.monotonic() + wait)
            else:  # a wait of nothing is none
                longest = min(60.0, FIRST_WAIT_S * 2 ** (attempt - 1))
                await self._sleep(longest * jitter(0.5, 1.0))
        while (left := self.resume_at - time.monotonic()) > 0 and not self.fault:
            await self._sleep(left * jitter(1.0, 1.1))

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)


def jitter(low: float, high: float) -> float:
    """A factor that keeps workers from asking in step; it reaches no artifact."""
    return secrets.SystemRandom().uniform(low, high)
