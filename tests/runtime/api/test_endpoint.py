"""The client against a real server on loopback that misbehaves, and its cache against damage, company and kills."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from stages.common import files
from stages.common.errors import JudgeError
from stages.core.reply import Reply, Unanswered
from stages.runtime.api import live
from stages.runtime.api.endpoint import Endpoint, Request, ask, request_key
from tests.runtime.chat_server import Answer, ChatServer, completion, fault, serving
from tests.runtime.hostile import STOPS

ROOT = Path(__file__).parents[3]
SAMPLING = {"temperature": 0.0, "max_completion_tokens": 9}


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CACHE", tmp_path / ".cache")
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("TEST_KEY", "sk-secret")


def at(server: ChatServer, **changes: Any) -> Endpoint:
    values = {
        "base_url": server.base_url,
        "model": "judge-1",
        "api_key_env": "TEST_KEY",
        "concurrency": 4,
        "timeout_s": 5.0,
        "max_attempts": 3,
        "price": None,
        "max_cost": None,
        "batch": None,
    }
    return Endpoint(**{**values, **changes})


def question(text: str, *, repeat: int = 0) -> Request:
    return Request([{"role": "user", "content": text}], SAMPLING, lambda reply: reply.text != "mumble", repeat)


def questions(n: int) -> list[Request]:
    return [question(f"q{i}") for i in range(n)]


def texts(replies: list[Reply | Unanswered]) -> list[str]:
    return [reply.text if isinstance(reply, Reply) else f"({reply.unscored_reason})" for reply in replies]


def echo(body: dict[str, Any], _: int) -> Answer:
    return completion(f"re {body['messages'][-1]['content']}")


def cache_path() -> Path:
    return files.CACHE / "replies.sqlite"


def test_a_reply_comes_as_the_server_gave_it() -> None:
    with serving(lambda *_: completion("yes", finish_reason="length")) as server:
        replies = ask([question("q")], at(server), desc="t")
    assert replies == [Reply("yes", "length", None, "judge-1-2025-01-01", 7, 3)]
    assert server.bodies == [{"model": "judge-1", "messages": [{"role": "user", "content": "q"}], **SAMPLING}]
    assert server.keys == ["Bearer sk-secret"]


def test_replies_keep_the_order_of_their_requests_and_equal_requests_are_asked_once() -> None:
    def slow_first(body: dict[str, Any], _: int) -> Answer:
        number = int(body["messages"][-1]["content"][1:])
        return completion(f"re q{number}", delay_s=0.02 * (8 - number))

    asked = [*questions(8), question("q3"), question("q3", repeat=1)]
    with serving(slow_first) as server:
        replies = ask(asked, at(server, concurrency=8), desc="t")
    assert texts(replies) == [*(f"re q{i}" for i in range(8)), "re q3", "re q3"]
    assert sorted(server.asked) == sorted([*(f"q{i}" for i in range(8)), "q3"])


def test_no_more_requests_are_under_way_than_asked_for() -> None:
    now, most = [0], [0]

    def watch(_: dict[str, Any], __: int) -> Answer:
        return completion("ok", delay_s=0.05)

    with serving(watch) as server:
        note = server.note

        def counted(body: dict[str, Any], key: str) -> Answer:
            now[0] += 1
            most[0] = max(most[0], now[0])
            time.sleep(0.03)
            now[0] -= 1
            return note(body, key)

        server.note = counted  # type: ignore[method-assign]
        ask(questions(12), at(server, concurrency=3), desc="t")
    assert most[0] == 3


def test_an_answer_is_paid_for_once() -> None:
    with serving(echo) as server:
        first = ask(questions(5), at(server), desc="t")
        again = ask(questions(6), at(server), desc="t")
    assert again[:5] == first
    assert sorted(server.asked) == [f"q{i}" for i in range(6)]


def test_a_full_cache_needs_no_key_and_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(echo) as server:
        first = ask(questions(3), at(server), desc="t")
    monkeypatch.delenv("TEST_KEY")
    assert ask(questions(3), at(server), desc="t") == first


def test_the_key_is_written_nowhere() -> None:
    with serving(echo) as server:
        ask(questions(3), at(server), desc="t")
    assert not any(b"sk-secret" in path.read_bytes() for path in files.CACHE.glob("*.sqlite*"))


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_one_sentence_that_names_its_variable(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY") if value is None else monkeypatch.setenv("TEST_KEY", value)
    monkeypatch.setenv("OPENAI_API_KEY", "another")  # the client's own default must not step in
    with serving(echo) as server, pytest.raises(JudgeError, match="environment variable TEST_KEY, which is not set"):
        ask(questions(1), at(server), desc="t")
    assert server.asked == []


def test_a_server_without_keys_gets_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    with serving(echo) as server:
        ask(questions(1), at(server, api_key_env=None), desc="t")
    assert server.keys == ["Bearer none"]


@pytest.mark.parametrize("change", ["base_url", "model", "messages", "sampling", "repeat"])
def test_whatever_decides_a_reply_is_in_its_key(change: str) -> None:
    with serving(echo) as server:
        asked, where = question("q"), at(server)
    other = {
        "base_url": (asked, where.model_copy(update={"base_url": "http://other/v1"})),
        "model": (asked, where.model_copy(update={"model": "judge-2"})),
        "messages": (question("q "), where),
        "sampling": (asked._replace(sampling={**SAMPLING, "temperature": 0.1}), where),
        "repeat": (asked._replace(repeat=1), where),
    }
    assert request_key(*other[change]) != request_key(asked, where)


def test_patience_and_key_are_not_in_the_request_key() -> None:
    with serving(echo) as server:
        patient = at(server, concurrency=9, timeout_s=1.0, max_attempts=9, api_key_env=None)
        assert request_key(question("q"), patient) == request_key(question("q"), at(server))


RETRIED = {
    "429": fault(429, "rate_limit_exceeded"),
    "500": fault(500),
    "503 in HTML": Answer(503, "<html>busy</html>", {"Content-Type": "text/html"}),
    "408": fault(408),
    "truncated JSON": Answer(200, '{"id": "c1", "choices": [{"ind'),
    "broken off": Answer(200, '{"id": "c1"', {"Content-Length": "500"}),
    "HTML with 200": Answer(200, "<html>hello</html>", {"Content-Type": "text/html"}),
    "no choices": Answer(200, {"id": "c1", "object": "chat.completion", "model": "m", "choices": []}),
    "null message": Answer(200, {"model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": None}]}),
    "JSON of another kind": Answer(200, '["hello"]'),
    "stall": completion("late", delay_s=0.6),
}


@pytest.mark.parametrize("first", RETRIED)
def test_what_may_pass_is_asked_again(first: str) -> None:
    with serving(lambda _, n: RETRIED[first] if n == 0 else completion("at last")) as server:
        assert texts(ask([question("q")], at(server, timeout_s=0.3), desc="t")) == ["at last"]
    assert server.asked == ["q", "q"]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured_by_all(form: str) -> None:
    def busy(_: dict[str, Any], n: int) -> Answer:
        if len(server.asked) > 1:
            return completion("ok")
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return fault(429, retry_after="0.4" if form == "seconds" else until)

    with serving(busy) as server:
        assert texts(ask(questions(2), at(server, concurrency=1), desc="t")) == ["ok", "ok"]
    assert server.times[1] - server.times[0] >= (0.4 if form == "seconds" else 0.9)


@pytest.mark.parametrize("name", STOPS)
def test_what_cannot_pass_stops_at_once_in_one_sentence_and_loses_nothing(name: str) -> None:
    answer, told = STOPS[name]
    mended = False

    def behave(body: dict[str, Any], n: int) -> Answer:
        return answer if body["messages"][-1]["content"] == "q5" and not mended else echo(body, n)

    with serving(behave) as server:
        with pytest.raises(JudgeError, match=told) as caught:
            ask(questions(40), at(server, concurrency=2), desc="t")
        assert "\n" not in str(caught.value)
        assert server.asked.count("q5") == 1
        assert len(server.asked) <= 8
        mended, n_before = True, len(server.asked)
        assert texts(ask(questions(40), at(server), desc="t")) == [f"re q{i}" for i in range(40)]
        assert len(server.asked) == n_before + 40 - (n_before - 1)


def test_a_worker_that_waits_stops_with_the_others() -> None:
    def behave(body: dict[str, Any], _: int) -> Answer:
        if body["messages"][-1]["content"] == "q0":
            return fault(429, retry_after="300")
        return fault(401)._replace(delay_s=0.2)

    start = time.monotonic()
    with serving(behave) as server, pytest.raises(JudgeError, match="401"):
        ask(questions(2), at(server, concurrency=2), desc="t")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (fault(400, "content_filter"), "refused"),
        (fault(400, "content_policy_violation"), "refused"),
        (fault(400, "context_length_exceeded"), "too_long"),
        (fault(413), "too_long"),
        (fault(500), "unanswered"),
    ],
)
def test_a_fault_of_one_request_leaves_that_one_unanswered_and_is_not_kept(answer: Answer, reason: str) -> None:
    mended = False

    def behave(body: dict[str, Any], n: int) -> Answer:
        return (
            answer if body["messages"][-1]["content"] == "q1" and not mended else echo(body, n)._replace(delay_s=0.02)
        )

    with serving(behave) as server:
        assert texts(ask(questions(9), at(server, concurrency=2), desc="t")) == [
            "re q0", f"({reason})", *(f"re q{i}" for i in range(2, 9))
        ]  # fmt: skip
        mended = True
        assert texts(ask(questions(9), at(server), desc="t"))[1] == "re q1"


def test_an_endpoint_that_answers_nothing_stops_the_run() -> None:
    with (
        serving(lambda *_: fault(503)) as server,
        pytest.raises(JudgeError, match=r"no answer to 10 requests in a row, 3 attempts each, last .*503"),
    ):
        ask(questions(50), at(server, concurrency=2), desc="t")
    assert len(set(server.asked)) <= 11


def test_an_endpoint_that_is_not_there_stops_the_run() -> None:
    with serving(echo) as server:
        gone = at(server, max_attempts=2)
    with pytest.raises(JudgeError, match="2 attempts each, last Connection error"):
        ask(questions(20), gone, desc="t")


@pytest.mark.parametrize("n_bad", [1, 9])
def test_requests_that_always_fail_block_no_later_run(n_bad: int) -> None:
    bad = {f"q{i}" for i in range(n_bad)}

    def behave(body: dict[str, Any], n: int) -> Answer:
        return fault(500) if body["messages"][-1]["content"] in bad else echo(body, n)

    expected = [*["(unanswered)"] * n_bad, *(f"re q{i}" for i in range(n_bad, 12))]
    with serving(behave) as server:
        for _ in range(2):  # the second run has nothing but the bad ones to ask
            assert texts(ask(questions(12), at(server, max_attempts=2), desc="t")) == expected


def test_failures_with_a_reply_between_them_are_not_in_a_row() -> None:
    def behave(body: dict[str, Any], n: int) -> Answer:
        return fault(500) if int(body["messages"][-1]["content"][1:]) % 2 else echo(body, n)

    with serving(behave) as server:
        replies = texts(ask(questions(30), at(server, concurrency=1, max_attempts=1), desc="t"))
    assert replies.count("(unanswered)") == 15


def test_a_key_that_a_server_echoes_is_neither_told_nor_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(body: dict[str, Any], _: int) -> Answer:
        told = server.keys[-1]
        sent = {
            "stop": Answer(401, {"error": {"message": "x" * 140 + told, "code": "invalid_api_key"}}),
            "filter": Answer(400, {"error": {"message": told, "code": "content_filter"}}),
            "broken": Answer(200, {"id": told, "object": "x", "choices": []}),
            "kept": completion(f"I saw {told}.", refusal=told),
        }
        return sent[body["messages"][-1]["content"]]

    monkeypatch.setenv("TEST_KEY", "sk-secret-0123456789")
    with serving(behave) as server:
        with pytest.raises(JudgeError, match="401") as caught:
            ask([question("stop")], at(server), desc="t")
        filtered, broken, kept = ask([question(q) for q in ("filter", "broken", "kept")], at(server), desc="t")
    assert "sk-" not in str(caught.value)
    assert isinstance(filtered, Unanswered)
    assert "Bearer [key]" in filtered.message
    assert isinstance(broken, Unanswered)
    assert "sk-" not in broken.message
    assert kept[:3] == ("I saw Bearer [key].", "stop", "Bearer [key]")
    assert not any(b"sk-secret" in path.read_bytes() for path in files.CACHE.glob("*.sqlite*"))


def test_a_word_that_stands_for_a_key_does_not_change_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "EMPTY")
    with serving(lambda *_: completion("It is EMPTY.")) as server:
        assert texts(ask([question("q")], at(server), desc="t")) == ["It is EMPTY."]


@pytest.mark.parametrize("key", ["sk-schlüssel", "sk-a\nb"])
def test_a_key_that_no_header_can_hold_is_one_sentence(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    with serving(echo) as server, pytest.raises(JudgeError, match="TEST_KEY must be printable ASCII") as caught:
        ask(questions(1), at(server), desc="t")
    assert key not in str(caught.value)
    assert server.asked == []


def test_a_cache_that_cannot_be_written_stops_the_run_in_one_sentence() -> None:
    def behave(body: dict[str, Any], n: int) -> Answer:
        with sqlite3.connect(cache_path()) as connection:
            connection.execute("DROP TABLE IF EXISTS replies")
        connection.close()
        return echo(body, n)

    with serving(behave) as server, pytest.raises(JudgeError, match=r"replies\.sqlite: the reply cache fails, no such"):
        ask(questions(3), at(server), desc="t")


def test_a_cache_folder_that_cannot_be_made_is_one_sentence() -> None:
    files.CACHE.write_text("a file in its place")
    with serving(echo) as server, pytest.raises(JudgeError, match=r"replies\.sqlite: the reply cache fails"):
        ask(questions(1), at(server), desc="t")


def test_a_cache_that_cannot_be_opened_is_one_sentence() -> None:
    cache_path().mkdir(parents=True)
    with serving(echo) as server, pytest.raises(JudgeError, match=r"the reply cache fails, unable to open"):
        ask(questions(1), at(server), desc="t")


def test_what_its_asker_refuses_is_given_but_not_kept() -> None:
    with serving(lambda _, n: completion("mumble" if n == 0 else "clear")) as server:
        assert texts(ask([question("q")], at(server), desc="t")) == ["mumble"]
        assert texts(ask([question("q")], at(server), desc="t")) == ["clear"]
        assert texts(ask([question("q")], at(server), desc="t")) == ["clear"]


def test_a_refusal_and_an_empty_reply_are_replies() -> None:
    with serving(lambda *_: completion(None, refusal="I won't")) as server:
        assert ask([question("q")], at(server), desc="t")[0][:3] == ("", "stop", "I won't")


def test_a_damaged_entry_is_told_and_asked_for_again(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(echo) as server:
        ask(questions(3), at(server), desc="t")
        key = request_key(question("q1"), at(server))
        with sqlite3.connect(cache_path()) as connection:
            connection.execute("UPDATE replies SET reply = replace(reply, 're q1', 'poison') WHERE key = ?", (key,))
        connection.close()
        assert texts(ask(questions(3), at(server), desc="t")) == ["re q0", "re q1", "re q2"]
        assert f"entry {key[:12]} is damaged" in capsys.readouterr().err
        assert server.asked.count("q1") == 2
        ask(questions(3), at(server), desc="t")
        assert len(server.asked) == 4


def test_an_entry_moved_to_another_key_is_damaged() -> None:
    with serving(echo) as server:
        ask(questions(2), at(server), desc="t")
        keys = [request_key(asked, at(server)) for asked in questions(2)]
        with sqlite3.connect(cache_path()) as connection:
            connection.execute("DELETE FROM replies WHERE key = ?", (keys[1],))
            connection.execute("UPDATE replies SET key = ? WHERE key = ?", (keys[1], keys[0]))
        connection.close()
        assert texts(ask(questions(2), at(server), desc="t")) == ["re q0", "re q1"]


def test_a_cache_that_is_no_database_is_one_sentence() -> None:
    cache_path().parent.mkdir()
    cache_path().write_text("not a database, but long enough to be looked at as one" * 40)
    with (
        serving(echo) as server,
        pytest.raises(JudgeError, match=r"replies.sqlite: the reply cache fails, .*; free space"),
    ):
        ask(questions(1), at(server), desc="t")


def test_runs_at_the_same_time_give_the_same_replies() -> None:
    number = count()
    with serving(lambda *_: completion(f"draw {next(number)}", delay_s=0.005)) as server:
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(ask, questions(30), at(server), desc="t") for _ in range(4)]
            replies = [texts(run.result()) for run in runs]
        assert replies == [texts(ask(questions(30), at(server), desc="t"))] * 4


SCRIPT = """
import sys
from stages.runtime.api.endpoint import Endpoint, Request, ask
endpoint = Endpoint(
    base_url=sys.argv[1], model="judge-1", api_key_env="TEST_KEY", concurrency=2, timeout_s=5.0, max_attempts=2,
    price=None, max_cost=None, batch=None,
)
asked = [Request([{"role": "user", "content": f"q{i}"}], {"temperature": 0.0}, lambda reply: True) for i in range(30)]
print([reply.text for reply in ask(asked, endpoint, desc="t")])
"""


def test_kill_9_loses_only_what_was_under_way(tmp_path: Path) -> None:
    with serving(lambda body, n: echo(body, n)._replace(delay_s=0.05)) as server:
        command = [sys.executable, "-c", SCRIPT, server.base_url]
        environment = {**os.environ, "DVC_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, env=environment, cwd=tmp_path)
        while len(server.asked) < 12:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        n_killed = len(server.asked)
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{[f're q{i}' for i in range(30)]}"
    assert n_killed < 30 <= len(server.asked) <= 32
