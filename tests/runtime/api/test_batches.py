"""The Batch API against a real server on loopback: order, faults, kills, company."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common import files
from stages.common.errors import JudgeError
from stages.core.reply import Reply, Unanswered
from stages.runtime.api import batches
from stages.runtime.api.endpoint import Endpoint, Request, ask
from tests.runtime import hostile
from tests.runtime.batch_server import BatchServer, answered, serving_batches
from tests.runtime.hostile import Became

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CACHE", tmp_path / ".cache")
    monkeypatch.setattr(batches, "FIRST_WAIT_S", 0.01)


def at(server: BatchServer, **changes: Any) -> Endpoint:
    values = {
        "base_url": server.base_url, "model": "judge-1", "api_key_env": None, "concurrency": 4, "timeout_s": 5.0,
        "max_attempts": 3, "price": {"input": 10.0, "output": 20.0}, "max_cost": 1.0,
        "batch": {"price_share": 0.5, "poll_s": 0.02},
    }  # fmt: skip
    return Endpoint.model_validate({**values, **changes})


def questions(n: int) -> list[Request]:
    sampling = {"max_completion_tokens": 9}
    return [
        Request([{"role": "user", "content": f"q{i}"}], sampling, lambda reply: reply.text != "mumble")
        for i in range(n)
    ]


def text_of(line: dict[str, Any]) -> str:
    return str(line["body"]["messages"][0]["content"])


def echo(line: dict[str, Any]) -> list[dict[str, Any]]:
    return [answered(line, f"re {text_of(line)}")]


def texts(replies: list[Reply | Unanswered]) -> list[str]:
    return [reply.text if isinstance(reply, Reply) else f"({reply.unscored_reason})" for reply in replies]


def spent(path: Path) -> float:
    with sqlite3.connect(path / ".cache/replies.sqlite") as connection:
        row = connection.execute("SELECT dollars FROM accounts").fetchone()
    connection.close()
    return float(row[0])


def test_a_batch_answers_in_order_at_its_share_of_the_price_and_once(tmp_path: Path) -> None:
    with serving_batches(echo) as server:
        assert texts(ask(questions(5), at(server), desc="t")) == [f"re q{i}" for i in range(5)]
        assert spent(tmp_path) == pytest.approx(5 * (100 * 10 + 10 * 20) / 2 / 1e6)
        assert texts(ask(questions(6), at(server), desc="t")) == [f"re q{i}" for i in range(6)]
        assert [text_of(line) for line in server.lines()] == [f"q{i}" for i in range(6)]
        body = server.lines()[0]["body"]
    assert body == {"model": "judge-1", "messages": [{"role": "user", "content": "q0"}], "max_completion_tokens": 9}


def test_the_first_line_for_a_request_counts_and_stray_or_damaged_ones_do_not() -> None:
    def behave(line: dict[str, Any]) -> list[dict[str, Any]]:
        stray: Any = [answered({"custom_id": "other"}, "x"), [], {"custom_id": None}]
        return [*stray, *echo(line), answered(line, "again")]

    with serving_batches(behave) as server:
        assert texts(ask(questions(3), at(server), desc="t")) == ["re q0", "re q1", "re q2"]


FAULTS = {
    "q1": lambda line: [answered(line, "content_filter", status=400)],
    "q2": lambda line: [answered(line, "context_length_exceeded", status=400)],
    "q3": lambda line: [answered(line, "busy", status=503)],
    "q4": lambda line: [],
    "q5": lambda line: [{"custom_id": line["custom_id"], "response": None, "error": {"code": "batch_expired"}}],
    "q6": lambda line: [{"custom_id": line["custom_id"], "response": {"status_code": 200, "body": {"choices": []}}}],
    "q7": lambda line: [answered(line, "mumble")],
    "q8": lambda line: [answered(line, "bad_request", status=400)],
}


def test_what_fails_is_asked_again_in_the_same_run_as_often_as_an_attempt_and_then_by_the_next() -> None:
    with serving_batches(lambda line: FAULTS.get(text_of(line), echo)(line), ends_as="expired") as server:
        first = texts(ask(questions(9), at(server), desc="t"))
        asked = [text_of(line) for line in server.lines()]
        assert {text: asked.count(text) for text in asked} == {
            "q0": 1, "q1": 1, "q2": 1, "q3": 3, "q4": 3, "q5": 3, "q6": 3, "q7": 1, "q8": 1
        }  # fmt: skip
        assert len(server.batches) == 3
        server.behave = echo
        assert texts(ask(questions(9), at(server), desc="t")) == [f"re q{i}" for i in range(9)]
        assert len(server.lines()) == len(asked) + 8
    assert first == ["re q0", "(refused)", "(too_long)", *["(unanswered)"] * 4, "mumble", "(unanswered)"]


def test_what_an_endpoint_answers_the_second_time_is_paid_for_once(tmp_path: Path) -> None:
    seen: set[str] = set()

    def behave(line: dict[str, Any]) -> list[dict[str, Any]]:
        known = text_of(line) in seen
        seen.add(text_of(line))
        return echo(line) if known or text_of(line) == "q0" else [answered(line, "busy", status=503)]

    with serving_batches(behave) as server:
        assert texts(ask(questions(3), at(server), desc="t")) == ["re q0", "re q1", "re q2"]
        assert [text_of(line) for line in server.lines()] == ["q0", "q1", "q2", "q1", "q2"]
    assert spent(tmp_path) == pytest.approx(3 * (100 * 10 + 10 * 20) / 2 / 1e6)


def test_a_batch_that_somebody_cancelled_is_not_sent_again() -> None:
    with serving_batches(lambda line: [], ends_as="cancelled") as server:
        assert texts(ask(questions(2), at(server), desc="t")) == ["(unanswered)"] * 2
        assert len(server.batches) == 1


def test_a_busy_api_is_asked_again() -> None:
    with serving_batches(echo) as server:
        server.n_faults = 2
        assert texts(ask(questions(2), at(server), desc="t")) == ["re q0", "re q1"]
        assert len(server.batches) == 1


def test_a_batch_that_is_refused_is_one_sentence_and_costs_nothing(tmp_path: Path) -> None:
    with serving_batches(echo, ends_as="failed") as server, pytest.raises(JudgeError, match="line 1 is wrong; correct"):
        ask(questions(2), at(server), desc="t")
    assert spent(tmp_path) == 0


def test_a_batch_beyond_the_cap_is_not_sent() -> None:
    with (
        serving_batches(echo) as server,
        pytest.raises(JudgeError, match=r"max_cost allows \$0\.0001, got \$0\.00 spent and up to \$0\.00"),
    ):
        ask(questions(2), at(server, max_cost=0.0001), desc="t")
    assert server.files == {}


def test_large_jobs_are_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_REQUESTS", 3)
    with serving_batches(echo) as server:
        assert texts(ask(questions(7), at(server), desc="t")) == [f"re q{i}" for i in range(7)]
        assert len(server.batches) == 3


SCRIPT = """
import sys
from stages.runtime.api.endpoint import Endpoint, Request, ask
endpoint = Endpoint.model_validate(dict(
    base_url=sys.argv[1], model="judge-1", api_key_env=None, concurrency=2, timeout_s=5.0, max_attempts=2,
    price=None, max_cost=None, batch={"price_share": 0.5, "poll_s": 0.05},
))
asked = [Request([{"role": "user", "content": f"q{i}"}], {}, lambda reply: True) for i in range(5)]
print([reply.text for reply in ask(asked, endpoint, desc="t")])
"""


@pytest.mark.parametrize("numbered", [True, False])
def test_a_killed_run_goes_on_with_its_batch(tmp_path: Path, numbered: bool) -> None:
    with serving_batches(echo, n_looks=10**6) as server:
        command = [sys.executable, "-c", SCRIPT, server.base_url]
        environment = {**os.environ, "DVC_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
        while not server.looks:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not numbered:  # killed before the number was written down
            with sqlite3.connect(tmp_path / ".cache/replies.sqlite") as connection:
                connection.execute("UPDATE batches SET batch_id = NULL")
            connection.close()
        server.n_looks = 0
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert len(server.batches) == 1
    assert done.stdout.splitlines()[-1] == f"{[f're q{i}' for i in range(5)]}"


def test_two_runs_at_once_share_a_batch(tmp_path: Path) -> None:
    with serving_batches(echo, n_looks=10) as server:
        command = [sys.executable, "-c", SCRIPT, server.base_url]
        environment = {**os.environ, "DVC_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)}
        runs = [
            subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [run.communicate()[0].splitlines()[-1] for run in runs]
        assert len(server.batches) == 1
    assert said == [f"{[f're q{i}' for i in range(5)]}"] * 2


def test_what_becomes_of_what_a_hostile_batch_api_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # whose templates are read
    assert hostile.in_a_batch() == [Became(does, n, what, more) for does, _, n, what, more in hostile.IN_A_BATCH]
