"""What a hostile server does to comparisons, and what becomes of it; for the tests and for bench.hostile."""

from typing import Any, NamedTuple

from stages.common.errors import JudgeError
from stages.core.judging import Answer, Comparison, Prompt
from stages.runtime.annotators import Annotators, comparer
from stages.runtime.api.endpoint import Endpoint, Request, ask
from tests.runtime.batch_server import answered, serving_batches
from tests.runtime.chat_server import Answer as Sent
from tests.runtime.chat_server import completion, fault, serving

ANNOTATOR = {
    "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "judge-1", "api_key_env": None, "concurrency": 4,
    "timeout_s": 1.5, "max_attempts": 2, "temperature": 0.0, "max_reply_tokens": 100, "structured": False,
    "price": {"input": 1.0, "output": 2.0}, "max_cost": 1.0, "batch": None,
}  # fmt: skip


class Became(NamedTuple):
    """Of one request."""

    does: str  # the server
    n_asked: int  # in one run
    became: str  # the verdict, or why there is none
    again: bool  # the next run asks for it


# What the server does, with what it sends (a list: one after another); then what becomes of it.
ONE_BY_ONE: list[tuple[str, Any, int, str, bool]] = [
    ("a verdict", completion("VERDICT: A"), 1, "first", False),
    ("a different model's name", completion("VERDICT: B"), 1, "second", False),
    (
        "429 with Retry-After: 0.1, then a verdict",
        [fault(429, retry_after="0.1"), completion("VERDICT: A")],
        2,
        "first",
        False,
    ),
    ("500, then a verdict", [fault(500), completion("VERDICT: A")], 2, "first", False),
    ("500 twice", fault(500), 2, "unanswered", True),
    ("a stall, then a verdict", [completion("VERDICT: B", delay_s=2.2), completion("VERDICT: A")], 2, "first", False),
    ("truncated JSON, then a verdict", [Sent(200, '{"id": "c'), completion("VERDICT: A")], 2, "first", False),
    (
        "broken off, then a verdict",
        [Sent(200, "{", {"Content-Length": "99"}), completion("VERDICT: A")],
        2,
        "first",
        False,
    ),
    ("an empty list of choices", Sent(200, {"choices": []}), 2, "unanswered", True),
    ("a refusal in words of its own", completion(None, refusal="I can't judge this."), 1, "refused", True),
    ("a content filter", fault(400, "content_filter"), 1, "refused", True),
    ("a filter after the fact", completion("VERDICT: A", finish_reason="content_filter"), 1, "refused", True),
    ("a verdict, then cut by length", completion("VERDICT: A", finish_reason="length"), 1, "truncated", True),
    ("beyond the context", fault(400, "context_length_exceeded"), 1, "too_long", True),
    ("nothing", completion(""), 1, "empty", True),
    ("off the menu", completion("VERDICT: C"), 1, "off_menu", True),
    ("praise", completion("Both are nice."), 1, "off_menu", True),
    ("two verdicts in a line", completion("VERDICT: A or B"), 1, "two_verdicts", True),
    ("two verdicts in turn", completion("VERDICT: A\nNo.\nVERDICT: B"), 1, "second", False),
]


def line(status: int, text: str) -> Any:
    """Behaviour: a line of output for a request."""
    return lambda asked: [answered(asked, text, status=status)]


IN_A_BATCH: list[tuple[str, Any, int, str, bool]] = [
    ("a verdict", line(200, "VERDICT: A"), 1, "first", False),
    (
        "a verdict, and another in a second line for the request",
        lambda asked: [answered(asked, "VERDICT: B"), answered(asked, "VERDICT: A")],
        1,
        "second",
        False,
    ),
    ("a content filter", line(400, "content_filter"), 1, "refused", True),
    ("beyond the context", line(400, "context_length_exceeded"), 1, "too_long", True),
    ("a request that it calls wrong", line(400, "bad_request"), 1, "unanswered", True),
    ("503 each time", line(503, "busy"), 2, "unanswered", True),
    ("503, then a verdict", [line(503, "busy"), line(200, "VERDICT: A")], 2, "first", False),
    ("no line, then a verdict", [lambda _: [], line(200, "VERDICT: A")], 2, "first", False),
    (
        "no choices, twice",
        lambda asked: [{"custom_id": asked["custom_id"], "response": {"status_code": 200, "body": {}}}],
        2,
        "unanswered",
        True,
    ),
    ("off the menu", line(200, "VERDICT: C"), 1, "off_menu", True),
]
# What cannot pass stops the run; and what its sentence holds.
STOPS = {
    "bad key": (fault(401, "invalid_api_key"), "401.*; set TEST_KEY and run again, finished replies are kept"),
    "no right": (fault(403), "403.*; set TEST_KEY"),
    "no such model": (fault(404, "model_not_found"), "404.*; correct the annotator or opponent"),
    "bad request": (fault(400, "unknown_parameter"), "400"),
    "no quota": (fault(429, "insufficient_quota"), "its quota is exhausted, got .*429"),
    "a day to wait": (fault(429, retry_after="86400"), "asks to wait too long"),
}


def one_by_one() -> list[Became]:
    """Judge all of ONE_BY_ONE at once, each asked for twice; replies come in the reverse order of their requests."""

    def behave(body: dict[str, Any], n_before: int) -> Sent:
        number = _number(body)
        answer = _turn(ONE_BY_ONE[number][1], n_before)
        return answer._replace(delay_s=answer.delay_s + 0.01 * (len(ONE_BY_ONE) - number))

    pairs = _pairs(len(ONE_BY_ONE))
    with serving(behave) as server:
        compare = _comparer(base_url=server.base_url, concurrency=len(ONE_BY_ONE))
        choices = compare([*pairs, *pairs])
        asked = [_number(body) for body in server.bodies]
        server.bodies.clear()
        compare(pairs)
        again = {_number(body) for body in server.bodies}
    assert choices[: len(pairs)] == choices[len(pairs) :]
    assert {choice.receipt.model for choice in choices if choice.position} == {"judge-1-2025-01-01"}
    return _became(ONE_BY_ONE, asked, choices, again)


def in_a_batch() -> list[Became]:
    """Judge all of IN_A_BATCH by the Batch API, whose lines come in another order than their requests."""
    seen: list[int] = []

    def behave(asked: dict[str, Any]) -> list[Any]:
        number = _number(asked["body"])
        seen.append(number)
        return list(_turn(IN_A_BATCH[number][1], seen.count(number) - 1)(asked))

    pairs = _pairs(len(IN_A_BATCH))
    with serving_batches(behave) as server:
        compare = _comparer(base_url=server.base_url, batch={"price_share": 0.5, "poll_s": 0.02})
        choices = compare(pairs)
        asked = list(seen)
        compare(pairs)
        again = set(seen[len(asked) :])
    return _became(IN_A_BATCH, asked, choices, again)


def stopped(name: str) -> tuple[str, int, int]:
    """Ask for 20 answers, one of which meets a case of STOPS, then again when it is mended.

    Returns:
        The sentence, how often that one was asked for, and how many requests both runs sent, the stopped one aside.
    """
    mended = False

    def behave(body: dict[str, Any], _: int) -> Sent:
        text = body["messages"][-1]["content"]
        return STOPS[name][0] if text == "q5" and not mended else completion(f"re {text}")

    with serving(behave) as server:
        endpoint = Endpoint.model_validate(
            {key: value for key, value in ANNOTATOR.items() if key in Endpoint.model_fields}
            | {"base_url": server.base_url, "api_key_env": "TEST_KEY", "concurrency": 2}
        )
        sampling = {"max_completion_tokens": 9}
        requests = [Request([{"role": "user", "content": f"q{i}"}], sampling, lambda reply: True) for i in range(20)]
        sentence = ""
        try:
            ask(requests, endpoint, desc=name)
        except JudgeError as error:
            sentence = str(error)
        n_met = server.asked.count("q5")
        mended = True
        ask(requests, endpoint, desc=name)
    return sentence, n_met, len(server.asked) - n_met


def _pairs(n: int) -> list[Comparison]:
    sides = Answer("Vola", "eot"), Answer("Brum", "eot")
    return [Comparison(Prompt(f"p:{i}", f"no. {i}"), *sides) for i in range(n)]


def _comparer(**changes: Any) -> Any:
    return comparer("gpt", Annotators.model_validate({"gpt": {**ANNOTATOR, **changes}}))


def _number(body: dict[str, Any]) -> int:
    return int(body["messages"][0]["content"].split("<prompt>\n| no. ")[1].split("\n")[0])


def _turn(sent: Any, n_before: int) -> Any:
    return sent[min(n_before, len(sent) - 1)] if isinstance(sent, list) else sent


def _became(cases: list[Any], asked: list[int], choices: list[Any], again: set[int]) -> list[Became]:
    return [
        Became(case[0], asked.count(i), choice.position or choice.unscored_reason, i in again)
        for i, (case, choice) in enumerate(zip(cases, choices, strict=False))
    ]
