"""One client for every OpenAI-compatible endpoint: bounded, patient, and never paying twice for an answer.

A reply that its caller accepts is kept in .cache/replies.sqlite under the hash of the exact request (base URL, model,
messages, sampling) and the repeat index, outside every DVC out; what failed is never kept. Whatever ends the run, a
kill included, loses no finished reply, and the next run asks only for the rest. Runs at once, temporary experiments
included, share the cache and the work: one asks, the others wait for its reply, or take over if it dies.

What a fault does:
    401, 403, 404, other 4xx, no quota left, `max_cost` reached      stops the run at once, in one sentence
    429, 408, 409, 5xx, timeout, no or broken answer
                                 waits (Retry-After if given, else longer each time, with jitter) and asks again,
                                 `max_attempts` times; then the request is unanswered. When 10 different requests in
                                 a row (live.MAX_FAILED) end so, with no answer to any other between them, the run
                                 stops; fewer never stop it, so that a request that always fails blocks no later run
    a content filter's refusal, a request beyond the context      that request is unanswered, with its reason
"""

from collections.abc import Mapping, Sequence

from stages.common.files import shared_cache
from stages.core.costs import estimate, money, told
from stages.core.reply import Reply, Unanswered
from stages.runtime.api.batches import ask_in_batches
from stages.runtime.api.chat_api import Endpoint, Request, request_key
from stages.runtime.api.live import ask_live
from stages.runtime.api.reply_cache import ReplyCache

__all__ = ["Endpoint", "Request", "ask", "quote", "request_key", "restore"]


def ask(requests: Sequence[Request], endpoint: Endpoint, *, desc: str) -> list[Reply | Unanswered]:
    """Answer every request, from the cache where it has the reply, in the order of `requests`.

    Says beforehand what the rest will cost, and afterwards what it did.

    Args:
        requests: what to ask.
        endpoint: whom.
        desc: label of the progress bar.

    Raises:
        JudgeError: the run cannot go on; every reply until then is kept.
    """
    keys = [request_key(request, endpoint) for request in requests]
    with ReplyCache.open(shared_cache() / "replies.sqlite") as cache:
        answers: dict[str, Reply | Unanswered] = {**cache.read(keys)}
        todo = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
        print(f"{desc}: {_quoted(len(set(keys)), todo, endpoint, cache)}", flush=True)
        if todo:
            asking = ask_in_batches if endpoint.batch else ask_live
            paid = asking(todo, endpoint, cache=cache, answers=answers, desc=desc)
            if endpoint.price:
                print(f"{desc}: this run cost {money(paid)}", flush=True)
    return [answers[key] for key in keys]


def quote(requests: Sequence[Request], endpoint: Endpoint, *, desc: str) -> None:
    """Say what `ask` would cost, without asking."""
    keyed = {request_key(request, endpoint): request for request in requests}
    with ReplyCache.open(shared_cache() / "replies.sqlite") as cache:
        known = cache.read(list(keyed))
        todo = {key: request for key, request in keyed.items() if key not in known}
        print(f"{desc}: {_quoted(len(keyed), todo, endpoint, cache)}")


def restore(replies: Mapping[str, Reply]) -> None:
    """Keep replies by their request keys; what is kept already stays."""
    with ReplyCache.open(shared_cache() / "replies.sqlite") as cache:
        for key, reply in replies.items():
            cache.write(key, reply)


def _quoted(n: int, todo: Mapping[str, Request], endpoint: Endpoint, cache: ReplyCache) -> str:
    """E.g. `gpt: 600 requests, 580 kept, 20 to ask of gpt-4o, about ...; $1.23 of $20.00 spent`."""
    text = f"{n:,} requests, {n - len(todo):,} kept"
    if not todo:
        return f"{text}, nothing to ask"
    text += f", {len(todo):,} to ask of {endpoint.model}, "
    text += told(estimate([request.size() for request in todo.values()], endpoint.price_paid()))
    if endpoint.max_cost is None:
        return text
    return f"{text}; {money(cache.spent(endpoint.account))} of {money(endpoint.max_cost)} spent"
