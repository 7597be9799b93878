"""What calls cost, against a real server on loopback: told beforehand, capped before each call, put right after it."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stages.common import files
from stages.common.errors import JudgeError
from stages.common.params import check_section
from stages.core.costs import at_most
from stages.core.reply import Reply, Unanswered
from stages.runtime.api import live
from stages.runtime.api.endpoint import Endpoint, Request, ask, quote
from tests.runtime.chat_server import Answer, ChatServer, completion, fault, serving

VALUES = {
    "base_url": "http://127.0.0.1:1/v1", "model": "judge-1", "api_key_env": None, "concurrency": 4, "timeout_s": 5.0,
    "max_attempts": 2, "price": {"input": 1000.0, "output": 10_000.0}, "max_cost": None, "batch": None,
}  # fmt: skip
PAID = (7 * 1000.0 + 3 * 10_000.0) / 1e6  # what the server counts: 0.037 dollars


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CACHE", tmp_path / ".cache")
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.01)


def at(server: ChatServer, **changes: Any) -> Endpoint:
    return check_section(
        {**VALUES, "base_url": server.base_url, **changes}, Endpoint, section="x", path=Path("params.yaml")
    )


def questions(n: int, *, max_reply_tokens: int = 10) -> list[Request]:
    sampling = {"max_completion_tokens": max_reply_tokens}
    return [Request([{"role": "user", "content": f"q{i:02}"}], sampling, lambda reply: True) for i in range(n)]


WORST = questions(1)[0].at_most(Endpoint.model_validate(VALUES))  # of one call: 0.239 dollars


def spent() -> float:
    with sqlite3.connect(files.CACHE / "replies.sqlite") as connection:
        (amount,) = connection.execute("SELECT total(dollars) FROM accounts").fetchone()
    connection.close()
    return float(amount)


def answered(replies: list[Reply | Unanswered]) -> int:
    return sum(isinstance(reply, Reply) for reply in replies)


def test_what_a_call_may_cost_is_its_bytes_and_its_longest_reply() -> None:
    size = questions(1)[0].size()
    assert size == (len('[[{"role": "user", "content": "q00"}], null]'), 10)
    assert pytest.approx(at_most(size, Endpoint.model_validate(VALUES).price)) == (size.n_bytes + 100) / 1000 + 0.1


def test_the_cost_is_told_before_the_first_call_and_after_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda *_: completion("ok")) as server:
        quote(questions(5), at(server, max_cost=9.0), desc="gpt")
        assert server.asked == []
        before = capsys.readouterr().out
        ask(questions(2), at(server), desc="gpt")
        ask(questions(5), at(server, max_cost=9.0), desc="gpt")
    assert before == (
        "gpt: 5 requests, 0 kept, 5 to ask of judge-1, about 63 tokens to read, at most 50 to write: $0.0630 to "
        "$0.5630; $0.00 of $9.00 spent\n"
    )
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "gpt: this run cost $0.0740"
    assert told[2].startswith("gpt: 5 requests, 2 kept, 3 to ask of judge-1, about 38 tokens")
    assert told[2].endswith("; $0.0740 of $9.00 spent")
    assert spent() == pytest.approx(5 * PAID)


def test_a_cap_holds_at_each_moment_however_many_calls_are_under_way() -> None:
    lock, under_way, most = threading.Lock(), [0], [0.0]

    def behave(_: dict[str, Any], __: int) -> Answer:  # as each request arrives, what all so far may have cost
        with lock:
            under_way[0] += 1
        most[0] = max(most[0], spent())
        return completion("ok", delay_s=0.02)

    cap = 3 * WORST
    with serving(behave) as server:
        with pytest.raises(
            JudgeError, match=r"max_cost allows \$0\.\d+, got .* spent and up to \$0\.\d+ for what is next"
        ):
            ask(questions(40), at(server, concurrency=16, max_cost=cap), desc="t")
        n_asked = len(server.asked)
        assert most[0] <= cap + 1e-6
        assert n_asked == int((cap - WORST) / PAID + 1e-9) + 1  # used up to where the next call could go beyond
        assert spent() == pytest.approx(n_asked * PAID)
        assert answered(ask(questions(40), at(server, max_cost=100.0), desc="t")) == 40
        assert len(server.asked) == 40  # nothing was lost


def test_runs_at_once_share_the_cap() -> None:
    cap = 3 * WORST

    def run(i: int) -> None:
        with pytest.raises(JudgeError, match="max_cost"):
            ask(questions(40, max_reply_tokens=10 + i), at(server, concurrency=8, max_cost=cap), desc="t")

    with serving(lambda *_: completion("ok", delay_s=0.01)) as server:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(run, range(3)))
        assert spent() == pytest.approx(len(server.asked) * PAID)
    assert spent() <= cap


@pytest.mark.parametrize(
    ("first", "cost"),
    [
        pytest.param(fault(500), PAID, id="an error is not billed"),
        pytest.param(Answer(200, '{"id": "c1", "choi'), WORST + PAID, id="a broken answer may be"),
        pytest.param(completion("late", delay_s=1.0), WORST + PAID, id="as may one that came too late"),
    ],
)
def test_an_attempt_counts_where_the_server_may_have_answered(first: Answer, cost: float) -> None:
    with serving(lambda _, n: first if n == 0 else completion("ok")) as server:
        assert answered(ask(questions(1), at(server, timeout_s=0.4), desc="t")) == 1
    assert spent() == pytest.approx(cost)


def test_a_server_that_is_not_there_bills_nothing() -> None:
    with serving(lambda *_: completion("ok")) as server:
        gone = at(server, max_attempts=1)
    assert answered(ask(questions(3), gone, desc="t")) == 0
    assert spent() == 0


def test_a_reply_that_counts_no_tokens_counts_as_the_longest() -> None:
    answer = completion("ok")
    assert isinstance(answer.body, dict)
    del answer.body["usage"]
    with serving(lambda *_: answer) as server:
        ask(questions(1), at(server), desc="t")
    assert spent() == pytest.approx(WORST)


def test_an_unknown_price_is_refused_unless_any_cost_will_do() -> None:
    with serving(lambda *_: completion("ok")) as server:
        with pytest.raises(Exception, match=r"x: must be given a price, without which max_cost cannot hold"):
            at(server, price=None, max_cost=5.0)
        assert answered(ask(questions(1), at(server, price=None, max_cost=None), desc="t")) == 1


def test_a_request_of_any_length_has_no_price() -> None:
    asked = [Request([{"role": "user", "content": "q"}], {}, lambda reply: True)]
    with serving(lambda *_: completion("ok")) as server, pytest.raises(JudgeError, match="needs a limit on its reply"):
        ask(asked, at(server), desc="t")
    assert server.asked == []
