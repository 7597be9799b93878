"""The section `annotators`, and a model as annotator against a real server on loopback."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stages.common import files
from stages.common.errors import InputError, ParamsError
from stages.common.params import check_section, load_params
from stages.core.judging import Answer, Comparison, Prompt, Submission
from stages.runtime.annotators import Annotators, comparer, grader
from stages.runtime.api import live
from tests.runtime import hostile
from tests.runtime.chat_server import Answer as Sent
from tests.runtime.chat_server import completion, serving

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
    with pytest.raises(InputError, match=r"stages/templates/judging/judge\.txt: not readable as text"):
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


def test_what_becomes_of_what_a_hostile_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.01)
    assert hostile.one_by_one() == [
        hostile.Became(does, n, what, more) for does, _, n, what, more in hostile.ONE_BY_ONE
    ]
