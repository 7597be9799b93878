"""The section `annotators`, and a model as annotator against a real server on loopback."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stages.core.judging import Answer, Comparison, Prompt, Submission
from stages.errors import InputError, ParamsError
from stages.runtime import files, live
from stages.runtime.annotators import Annotators, comparer, grader
from stages.runtime.params import check_section, load_params
from tests.runtime.chat_server import Answer as Sent
from tests.runtime.chat_server import completion, fault, serving

ROOT = Path(__file__).parents[2]
GPT: dict[str, Any] = {
    "kind": "openai",
    "base_url": "http://127.0.0.1:1/v1",
    "model": "judge-1",
    "api_key_env": None,
    "temperature": 0,
    "max_reply_tokens": 300,
    "concurrency": 4,
    "timeout_s": 5,
    "max_attempts": 2,
    "structured": False,
    "price": {"input": 2.5, "output": 10.0},
    "max_cost": 1.0,
    "batch": None,
}
PAIR = Comparison(Prompt("p:1", "Which town?", ("Vola",)), Answer("Vola", "eot"), Answer("Brum", "eot"))


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CACHE", tmp_path / ".cache")
    monkeypatch.chdir(ROOT)


def annotators(**named: dict[str, Any]) -> Annotators:
    return check_section(named, Annotators, section="annotators", path=Path("params.yaml"))


def test_the_committed_section_is_valid() -> None:
    section = load_params("annotators", Annotators)
    assert [section.named(name).kind for name in ("reference", "length")] == ["reference", "length"]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"x": {"kind": "oracle"}}, r"annotators.x: .*'reference', 'length', 'openai', 'people'"),
        ({"x": {}}, r"annotators.x"),
        ({"x": {"kind": "length", "model": "m"}}, r"annotators.x.length.model: unknown key"),
        ({"x": {**GPT, "temperature": 3}}, r"annotators.x.openai.temperature: must be .*less than or equal to 2"),
        ({"x": {**GPT, "base_url": "ftp://x"}}, r"annotators.x.openai.base_url"),
        ({"x": {key: value for key, value in GPT.items() if key != "model"}}, r"annotators.x.openai.model: missing"),
        ({"x": {**GPT, "api_key": "sk-1"}}, r"annotators.x.openai.api_key: unknown key"),
    ],
)
def test_a_wrong_annotator_is_named_with_its_key(section: dict, told: str) -> None:
    with pytest.raises(ParamsError, match=told):
        annotators(**section)


def test_an_unknown_annotator_is_named_with_the_known() -> None:
    with pytest.raises(ParamsError, match="got 'gpt'; add it there, or use one of: length"):
        comparer("gpt", annotators(length={"kind": "length"}))


def test_length_does_not_grade() -> None:
    with pytest.raises(ParamsError, match=r"annotators.length: a grade needs .* got length"):
        grader("length", annotators(length={"kind": "length"}))


def test_a_missing_template_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"stages/templates/judge\.txt: not readable as text"):
        comparer("gpt", annotators(gpt=GPT))


def choose_vola(body: dict[str, Any], _: int) -> Sent:
    """Prefer the side that says Vola, as a judge would."""
    text = body["messages"][0]["content"]
    side = "A" if "Vola" in text.split("<answer_a>")[1].split("</answer_a>")[0] else "B"
    return completion(f"It names the town.\nVERDICT: {side}")


def test_a_model_compares_and_all_that_its_verdict_rests_on_is_kept(tmp_path: Path) -> None:
    swapped = PAIR._replace(first=PAIR.second, second=PAIR.first)
    with serving(choose_vola) as server:
        compare = comparer("gpt", annotators(gpt={**GPT, "base_url": server.base_url}))
        choices = compare([PAIR, swapped])
    assert [choice.position for choice in choices] == ["first", "second"]
    assert choices[0].unscored_reason is None
    said = choices[0].receipt
    assert said[:3] == ("It names the town.\nVERDICT: A", "judge-1-2025-01-01", "stop")
    assert said[3:6] == (7, 3, (7 * 2.5 + 3 * 10.0) / 1_000_000)
    with sqlite3.connect(tmp_path / ".cache/replies.sqlite") as connection:
        kept = {key for (key,) in connection.execute("SELECT key FROM replies")}
    connection.close()
    assert {choice.receipt.request for choice in choices} == kept
    assert [server.bodies[0][key] for key in ("model", "temperature", "max_completion_tokens")] == ["judge-1", 0, 300]


def test_a_temperature_of_null_is_not_sent() -> None:
    with serving(choose_vola) as server:
        comparer("gpt", annotators(gpt={**GPT, "base_url": server.base_url, "temperature": None}))([PAIR])
    assert "temperature" not in server.bodies[0]


def test_a_verdict_that_does_not_parse_is_unscored_and_asked_for_again() -> None:
    with serving(
        lambda *_: completion("Both are nice.") if len(server.asked) < 2 else completion("VERDICT: B")
    ) as server:
        compare = comparer("gpt", annotators(gpt={**GPT, "base_url": server.base_url}))
        assert [compare([PAIR])[0][:2] for _ in range(3)] == [(None, "off_menu"), ("second", None), ("second", None)]
        assert len(server.asked) == 2


def test_a_model_grades_and_is_asked_about_safety_where_it_is_at_stake() -> None:
    def grade_it(body: dict[str, Any], _: int) -> Sent:
        is_safety = "SAFE:" in body["messages"][0]["content"]
        return completion("Fine.\n" + ("SAFE: YES\n" if is_safety else "") + "OUTCOME: Pass\n5")

    submissions = [Submission(PAIR.prompt._replace(is_safety=safety), PAIR.first) for safety in (False, True)]
    with serving(grade_it) as server:
        grades = grader("gpt", annotators(gpt={**GPT, "base_url": server.base_url}))(submissions)
    assert [grade[:3] for grade in grades] == [(5, "Pass", None), (5, "Pass", True)]


def test_a_grade_silent_on_safety_is_not_kept() -> None:
    submission = Submission(PAIR.prompt._replace(is_safety=True), PAIR.first)
    with serving(lambda *_: completion("OUTCOME: Pass\n5")) as server:
        grade = grader("gpt", annotators(gpt={**GPT, "base_url": server.base_url}))
        assert [grade([submission])[0].unscored_reason for _ in range(2)] == ["off_menu", "off_menu"]
        assert len(server.asked) == 2


@pytest.mark.parametrize("structured", [False, True])
def test_structured_output_is_asked_for_where_the_endpoint_has_it(structured: bool) -> None:
    text = '{"reasons": "It names the town.", "verdict": "A"}' if structured else "VERDICT: A"
    with serving(lambda *_: completion(text)) as server:
        compare = comparer("gpt", annotators(gpt={**GPT, "base_url": server.base_url, "structured": structured}))
        assert [choice.position for choice in compare([PAIR])] == ["first"]
        (body,) = server.bodies
    assert ("response_format" in body) is structured
    assert ("JSON" in body["messages"][0]["content"]) is structured
    if structured:
        assert body["response_format"]["type"] == "json_schema"
        assert body["response_format"]["json_schema"]["schema"]["properties"]["verdict"]["enum"] == [
            "A",
            "B",
            "NEITHER",
        ]


def test_structured_output_is_part_of_the_request_and_of_its_key() -> None:
    with serving(lambda *_: completion('VERDICT: A\n{"verdict": "A"}')) as server:
        for structured in (False, True):
            comparer("gpt", annotators(gpt={**GPT, "base_url": server.base_url, "structured": structured}))([PAIR])
        assert len(server.asked) == 2


# What a hostile server does to a comparison, and what becomes of it: how many times it is asked in one run, the
# verdict or why there is none, and whether the next run asks again.
HOSTILE: list[tuple[str, Any, int, str, bool]] = [
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
    ("a stall, then a verdict", [completion("VERDICT: B", delay_s=0.9), completion("VERDICT: A")], 2, "first", False),
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


def test_what_becomes_of_what_a_hostile_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies come in another order than their requests, too: each is held for a different time."""
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.01)

    def number_of(body: dict[str, Any]) -> int:
        return int(body["messages"][0]["content"].split("<prompt>\n| no. ")[1].split("\n")[0])

    def behave(body: dict[str, Any], n_before: int) -> Sent:
        number = number_of(body)
        sent = HOSTILE[number][1]
        answer = sent[min(n_before, len(sent) - 1)] if isinstance(sent, list) else sent
        return answer._replace(delay_s=answer.delay_s + 0.01 * (len(HOSTILE) - number))

    pairs = [PAIR._replace(prompt=Prompt(f"p:{i}", f"no. {i}")) for i in range(len(HOSTILE))]
    with serving(behave) as server:
        annotator = {**GPT, "base_url": server.base_url, "timeout_s": 0.6, "concurrency": len(HOSTILE)}
        choices = comparer("gpt", annotators(gpt=annotator))([*pairs, *pairs])  # each is asked for twice
        n_asked = [0] * len(HOSTILE)
        for body in server.bodies:
            n_asked[number_of(body)] += 1
        del server.bodies[:]
        comparer("gpt", annotators(gpt=annotator))(pairs)
        again = {number_of(body) for body in server.bodies}
    assert choices[: len(pairs)] == choices[len(pairs) :]
    became = [choice.position or choice.unscored_reason for choice in choices[: len(pairs)]]
    rows = [
        (row[0], n, what, i in again) for i, (row, n, what) in enumerate(zip(HOSTILE, n_asked, became, strict=True))
    ]
    print(
        *(f"{does:45} asked {n}x  {what:12} {'again next time' if more else 'kept'}" for does, n, what, more in rows),
        sep="\n",
    )
    assert rows == [(does, n, what, more) for does, _, n, what, more in HOSTILE]
    assert {choice.receipt.model for choice in choices if choice.position} == {"judge-1-2025-01-01"}
