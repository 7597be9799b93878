"""Requests asked through the Batch API: a file of them goes up, the answers come within a day and cost less.

What is under way stands in the reply cache with the hashes of its requests, so a run that was killed, or another one
that asks the same, looks at the batch there is instead of paying for a second one. A batch carries its name in its
metadata: one whose number was never written down (a kill at the wrong moment) is found by it.

Answers may come in any order, twice, or not at all: the first for a request counts. What got none, or a fault that
may pass (429, 5xx), is asked again by the same run, after `poll_s`, until it has been in `max_attempts` batches; then
it is unanswered. Of a batch that somebody cancelled nothing is asked again but by the next run.
"""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Set
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from stages.common.errors import JudgeError
from stages.core.costs import money
from stages.core.reply import Reply, Unanswered
from stages.runtime.api.chat_api import (
    MAY_PASS,
    Batch,
    Endpoint,
    NoAnswerError,
    Request,
    asked_wait,
    client,
    fate,
    final,
    read_completion,
    told,
)
from stages.runtime.api.live import FIRST_WAIT_S, Answers, jitter
from stages.runtime.api.reply_cache import OpenBatch, ReplyCache
from stages.runtime.progress import bar

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_REQUESTS = 50_000  # of one batch, as the API allows
MAX_BYTES = 100_000_000  # of one file; it allows 200 MB
URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
NAME = "lima_batch"  # in a batch's metadata
UNDER_WAY = ("validating", "in_progress", "finalizing", "cancelling")

T = TypeVar("T")


def ask_in_batches(
    todo: Mapping[str, Request], endpoint: Endpoint, *, cache: ReplyCache, answers: Answers, desc: str
) -> float:
    """Ask for all of `todo` and put what comes into `answers`; gives the dollars that it cost.

    Raises:
        JudgeError: the run cannot go on; what is under way is picked up by the next one.
    """
    asking = _Batches(endpoint, cache=cache, answers=answers, todo=todo, desc=desc)
    asyncio.run(asking.run())
    return asking.paid


class _Batches:
    """One run over the requests that the cache lacks."""

    def __init__(
        self, endpoint: Endpoint, *, cache: ReplyCache, answers: Answers, todo: Mapping[str, Request], desc: str
    ) -> None:
        assert endpoint.batch
        self.endpoint = endpoint
        self.batch: Batch = endpoint.batch
        self.cache = cache
        self.answers = answers
        self.todo = todo
        self.desc = desc
        self.paid = 0.0
        self.n_asked: Counter[str] = Counter()  # batches that came back without an answer, by request key

    async def run(self) -> None:
        """Send what nobody has sent, then wait for all of it."""
        async with client(self.endpoint) as asked:
            with bar(desc=self.desc, total=len(self.todo), unit="reply") as progress:
                while left := self._left():
                    for batch in self._open(left):
                        n_before = self.n_asked.total()
                        if await self._look(asked, batch):
                            progress.n = len(self.todo) - len(self._left())
                            progress.refresh()
                        if self.n_asked.total() > n_before:
                            await asyncio.sleep(self.batch.poll_s)
                    covered = {key for batch in self._open(left) for key in batch.keys}
                    unsent = {key: self.todo[key] for key in self._left() if key not in covered}
                    for part in _parts(unsent, self.endpoint):
                        await self._send(asked, part)
                    if not unsent and self._left():
                        await asyncio.sleep(self.batch.poll_s)

    def _left(self) -> list[str]:
        """Requests without an answer; replies that another run has kept by now are taken."""
        missing = [key for key in self.todo if key not in self.answers]
        self.answers.update(self.cache.read(missing))
        return [key for key in missing if key not in self.answers]

    def _open(self, keys: list[str]) -> list[OpenBatch]:
        """Batches under way that hold some of these requests."""
        wanted = set(keys)
        return [batch for batch in self.cache.batches(self.endpoint.account) if wanted & set(batch.keys)]

    async def _send(self, asked: "AsyncOpenAI", part: Mapping[str, Request]) -> None:
        aside = sum(request.at_most(self.endpoint) for request in part.values())
        name = secrets.token_hex(16)
        limit = self.endpoint.max_cost
        opened = self.cache.open_batch(name, self.endpoint.account, list(part), aside, limit=limit)
        if opened == "covered":
            return
        if opened == "capped":
            spent = self.cache.spent(self.endpoint.account)
            raise JudgeError(
                f"{self.endpoint.base_url} ({self.endpoint.model}): max_cost allows {money(limit or 0)}, got "
                f"{money(spent)} spent and up to {money(aside)} for a batch of {len(part)}; raise max_cost and run "
                f"again, finished replies are kept"
            )
        lines = (
            {"custom_id": key, "method": "POST", "url": URL, "body": request.body(self.endpoint)}
            for key, request in part.items()
        )
        data = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()

        async def upload() -> str:
            return (await asked.files.create(file=("requests.jsonl", data), purpose="batch")).id

        async def create() -> str:
            found = await _named(asked, name)
            if found:
                return found
            made = await asked.batches.create(
                input_file_id=file_id, endpoint=URL, completion_window="24h", metadata={NAME: name}
            )
            return made.id

        try:
            file_id = await self._patiently(upload)
        except JudgeError:
            self.cache.close_batch(name, {}, list(part), cost=0.0)
            raise
        batch_id = await self._patiently(create)  # which may have been carried out though it failed: the next run looks
        self.cache.name_batch(name, batch_id)
        print(f"{self.desc}: {batch_id} has {len(part):,} requests; a run that is stopped goes on with it", flush=True)

    async def _look(self, asked: "AsyncOpenAI", batch: OpenBatch) -> bool:
        """Take the answers of a batch, if it has ended."""
        batch_id = batch.batch_id
        if batch_id is None:
            if self.cache.is_alive(batch.owner):
                return False  # it is being sent
            batch_id = await self._patiently(lambda: _named(asked, batch.name))
            if batch_id is None:
                self.cache.close_batch(batch.name, {}, batch.keys, cost=0.0)
                return True
            self.cache.name_batch(batch.name, batch_id)
        state = await self._patiently(lambda: asked.batches.retrieve(batch_id))
        if state.status in UNDER_WAY:
            return False
        if state.status == "failed":
            self.cache.close_batch(batch.name, {}, batch.keys, cost=0.0)
            faults = (state.errors and state.errors.data) or []
            line = told(Exception(faults[0].message if faults else "no reason given"), self.endpoint)
            raise JudgeError(
                f"{self.endpoint.base_url} ({self.endpoint.model}): a batch was refused, got {line}; correct the "
                f"annotator and run again, finished replies are kept"
            )
        lines: list[Any] = []
        for file_id in (state.output_file_id, state.error_file_id):
            if file_id:
                lines += _lines(await self._patiently(partial(_content, asked, file_id)))
        self._take(batch, lines, status=state.status)
        return True

    def _take(self, batch: OpenBatch, lines: list[Any], *, status: str) -> None:
        came: Answers = {}
        refused = set()
        for line in lines:
            key = line.get("custom_id") if isinstance(line, dict) else None
            if key in batch.keys and key not in came:
                came[key] = _answer(line, self.endpoint)
                if 400 <= _status(line) < 500 and _status(line) not in MAY_PASS:
                    refused.add(key)
        costs = [
            self.endpoint.cost_of(answer.n_prompt_tokens, answer.n_reply_tokens)
            for answer in came.values()
            if isinstance(answer, Reply)
        ]
        cost = None if None in costs else sum(cost for cost in costs if cost is not None)
        mine = [key for key in batch.keys if key in self.todo]
        missing = Unanswered("unanswered", f"the batch ended as {status} without an answer")
        said = {key: came.get(key, missing) for key in mine}
        again = self._again(said, refused) if status != "cancelled" else []
        kept = {key: a for key, a in said.items() if isinstance(a, Reply) and self.todo[key].accept(a)}
        if self.cache.close_batch(batch.name, kept, mine, cost=cost) is not None:
            self.paid += batch.dollars if cost is None else cost
        done = {key: answer for key, answer in said.items() if key not in again}
        self.answers.update({**done, **self.cache.read(list(kept))})

    def _again(self, said: Answers, refused: Set[str]) -> list[str]:
        """Requests that are worth another batch; what the endpoint refuses for good is not."""
        failed = [key for key, a in said.items() if isinstance(a, Unanswered) and a.unscored_reason == "unanswered"]
        self.n_asked.update(failed)
        again = [key for key in failed if key not in refused and self.n_asked[key] < self.endpoint.max_attempts]
        if again:
            print(f"{self.desc}: {len(again):,} requests got no answer and are asked again", flush=True)
        return again

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call of the API, again where that may help.

        Raises:
            JudgeError: it cannot succeed, or did not in `max_attempts`.
        """
        error: Exception | None = None
        for attempt in range(self.endpoint.max_attempts):
            if error is not None:
                wait = asked_wait(error)
                longest = min(60.0, FIRST_WAIT_S * 2**attempt)
                await asyncio.sleep(wait * jitter(1.0, 1.1) if wait else longest * jitter(0.5, 1.0))
            try:
                return await call()
            except Exception as fault:
                unanswered = final(fault, self.endpoint)
                error = Exception(unanswered.message) if unanswered else fault
        raise JudgeError(
            f"{self.endpoint.base_url} ({self.endpoint.model}): the Batch API gives no answer in "
            f"{self.endpoint.max_attempts} attempts, last {told(error, self.endpoint)}; run again when it is well, "
            f"what is under way is kept"
        ) from error


def _parts(requests: Mapping[str, Request], endpoint: Endpoint) -> Iterator[dict[str, Request]]:
    part: dict[str, Request] = {}
    n_bytes = 0
    for key, request in requests.items():
        size = len(json.dumps(request.body(endpoint), ensure_ascii=False).encode()) + 200
        if part and (len(part) == MAX_REQUESTS or n_bytes + size > MAX_BYTES):
            yield part
            part, n_bytes = {}, 0
        part[key] = request
        n_bytes += size
    if part:
        yield part


async def _named(asked: "AsyncOpenAI", name: str) -> str | None:
    """The number of the batch with that name, if it was made."""
    async for batch in asked.batches.list(limit=100):
        if (batch.metadata or {}).get(NAME) == name:
            return batch.id
    return None


async def _content(asked: "AsyncOpenAI", file_id: str) -> str:
    return (await asked.files.content(file_id)).content.decode("utf-8", errors="replace")


def _lines(text: str) -> list[Any]:
    """The JSON of every line that is JSON."""
    found = []
    for line in text.split("\n"):
        try:
            found.append(json.loads(line))
        except ValueError:  # a damaged line: its request is unanswered
            continue
    return found


def _answer(line: dict[str, Any], endpoint: Endpoint) -> Reply | Unanswered:
    """What a line of a batch's output says."""
    from openai.types.chat import ChatCompletion

    response = line.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    status = _status(line)
    if status == 200 and isinstance(body, dict):
        try:
            return read_completion(ChatCompletion.construct(**body), endpoint)
        except NoAnswerError as error:
            return Unanswered("unanswered", told(error, endpoint))
    fault = (body or {}).get("error") if isinstance(body, dict) else line.get("error")
    code, message = (fault.get("code"), fault.get("message")) if isinstance(fault, dict) else (None, fault)
    text = told(Exception(f"{status or ''} {message or code or 'no answer'}".strip()), endpoint)
    return fate(code, status, text) or Unanswered("unanswered", text)


def _status(line: dict[str, Any]) -> int:
    """The HTTP status in a line of output; 0 where it has none."""
    response = line.get("response")
    status = response.get("status_code") if isinstance(response, dict) else None
    return status if isinstance(status, int) else 0
