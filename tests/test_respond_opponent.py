import json

import polars as pl
import pytest

from stages.common.errors import InputError, ParamsError
from stages.common.files import read_table, write_table
from stages.respond_opponent import main
from stages.schema import ASKED, PROMPT, RESPONSE
from tests.runtime.chat_server import completion, endpoint, serving
from tests.tiny import ANSWERING, make_base, prompts, write_params

TEXTS = ["Hi", "Who?"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "data/prompts/test.parquet", prompts(TEXTS), PROMPT)
    return tmp_path


def answers(project, *, kind="responses", path):
    write_params(project, respond=ANSWERING, opponents={"other": {"kind": kind, "path": path}})
    main("other")
    return read_table(project / "data/respond_opponent/other.parquet", RESPONSE)


def test_a_model_folder_answers(project):
    make_base(project / "models/base")
    table = answers(project, kind="model", path="models/base")
    assert table["responder"].to_list() == ["other", "other"]


FORMATS = {
    "lima.jsonl": "\n".join(json.dumps({"conversations": [t, t.upper()], "source": ""}) for t in TEXTS),
    "alpaca.json": json.dumps([{"instruction": t, "output": t.upper(), "generator": "x"} for t in TEXTS]),
    "ours.jsonl": "\n".join(
        json.dumps({"prompt_id": f"authored:test{i:03d}", "response": t.upper()}) for i, t in enumerate(TEXTS)
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_responses_is_read(project, name):
    (project / name).write_text(FORMATS[name])
    table = answers(project, path=name)
    assert table["response"].to_list() == ["HI", "WHO?"]
    assert set(table["finish_reason"]) == {"given"}


def test_a_line_separator_inside_an_answer_cuts_no_row(project):
    lines = [json.dumps({"conversations": [text, "a\u2028b"]}, ensure_ascii=False) for text in TEXTS]
    (project / "some.jsonl").write_text("\n \n".join(lines))
    assert answers(project, path="some.jsonl")["response"].to_list() == ["a\u2028b"] * 2


def test_two_answers_to_one_prompt_are_refused(project):
    (project / "some.jsonl").write_text(FORMATS["lima.jsonl"] + '\n{"conversations": ["Hi", "other"]}')
    with pytest.raises(InputError, match="row 3: a second answer to 'Hi'"):
        answers(project, path="some.jsonl")


def test_another_arms_responses_keep_why_they_ended(project):
    rows = [("authored:test000", "Ho", "eot"), ("authored:test001", "Me", "length"), ("gone", "x", "eot")]
    frame = pl.DataFrame(
        [
            {"prompt_id": p, "responder": "bulk", "sample": 0, "response": r, "finish_reason": f, "n_tokens": 1}
            for p, r, f in rows
        ],
        schema=dict(RESPONSE),
    )
    write_table(project / "bulk.parquet", frame, RESPONSE)
    table = answers(project, path="bulk.parquet")
    assert table["finish_reason"].to_list() == ["eot", "length"]
    assert set(table["responder"]) == {"other"}


def test_a_prompt_without_an_answer_is_named(project):
    (project / "some.jsonl").write_text(FORMATS["lima.jsonl"].splitlines()[0])
    with pytest.raises(InputError, match="no answer to 1 of 2 test prompts, first 'authored:test001'"):
        answers(project, path="some.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "cannot be read as .json"),
        ("a.json", "{}", "a list of answers is needed, got a dict"),
        ("a.jsonl", '{"conversations": ["Hi"]}', "row 1: not an answer"),
        ("a.parquet", "x", "not readable parquet"),
    ],
)
def test_a_file_of_another_form_is_one_sentence(project, name, content, message):
    (project / name).write_text(content)
    with pytest.raises(InputError, match=message):
        answers(project, path=name)


def test_a_missing_file_is_one_sentence(project):
    with pytest.raises(InputError, match=r"gone\.jsonl"):
        answers(project, path="gone.jsonl")


def test_an_unknown_opponent_is_refused_with_those_there_are(project):
    write_params(project, opponents={"base": {"kind": "model", "path": "x"}})
    with pytest.raises(ParamsError, match="opponents has only base"):
        main("other")


def test_an_endpoint_is_asked_with_the_system_message_of_its_file(project):
    (project / "system.txt").write_text("Be brief.\n")
    with serving(lambda body, _: completion(body["messages"][-1]["content"].upper())) as server:
        given = {"kind": "endpoint", "path": "system.txt", **endpoint(server, model="other-1")}
        write_params(project, respond=ANSWERING, opponents={"other": given})
        main("other")
        assert [body["messages"][0] for body in server.bodies] == [{"role": "system", "content": "Be brief."}] * 2
    table = read_table(project / "data/respond_opponent/other.parquet", RESPONSE)
    assert table["response"].to_list() == ["HI", "WHO?"]
    assert set(table["responder"]) == {"other"}
    asked = read_table(project / "data/respond_opponent/other.asked.parquet", ASKED)
    assert asked.select("model", "n_prompt_tokens", "n_reply_tokens").rows() == [("judge-1-2025-01-01", 7, 3)] * 2


def test_a_dry_run_of_an_opponent_asks_and_writes_nothing(project, capsys):
    (project / "system.txt").write_text("")
    with serving(lambda *_: completion("x")) as server:
        given = {"kind": "endpoint", "path": "system.txt", **endpoint(server, model="other-1")}
        write_params(project, respond=ANSWERING, opponents={"other": given})
        main("other", dry_run=True)
        assert server.bodies == []
    assert capsys.readouterr().out.startswith("answer other: 2 requests, 0 kept, 2 to ask of other-1, about ")
    assert not (project / "data/respond_opponent").exists()


def test_an_opponent_of_unknown_price_is_refused_unless_any_cost_will_do(project):
    (project / "system.txt").write_text("")
    with serving(lambda *_: completion("x")) as server:
        given = {"kind": "endpoint", "path": "system.txt", **endpoint(server, price=None, max_cost=5.0)}
        write_params(project, respond=ANSWERING, opponents={"other": given})
        with pytest.raises(ParamsError, match="given a price, without which max_cost cannot hold"):
            main("other")
        assert server.bodies == []


def test_keys_of_an_endpoint_are_refused_elsewhere(project):
    write_params(project, respond=ANSWERING, opponents={"other": {"kind": "model", "path": "x", "model": "y"}})
    with pytest.raises(ParamsError, match=r"opponents\.other\.model: unknown key"):
        main("other")


@pytest.mark.parametrize("missing", ["send", "base_url"])
def test_a_key_of_an_endpoint_that_is_missing_is_named(project, missing):
    with serving(lambda *_: completion("")) as server:
        given = {"kind": "endpoint", "path": "system.txt", **endpoint(server)}
    del given[missing]
    write_params(project, respond=ANSWERING, opponents={"other": given})
    with pytest.raises(ParamsError, match=rf"opponents\.other\.{missing}: missing"):
        main("other")


@pytest.fixture
def examples(project):
    """A short template in place of the project's."""
    (project / "stages/templates").mkdir(parents=True)
    path = project / "stages/templates/in_context.txt"
    path.write_text("<message>\na\n</message>\n<reply>\nb\n</reply>\n{{dialogue}}\n")
    return path


def test_a_base_goes_on_from_examples_and_its_answer_ends_where_the_form_closes_it(project, examples, monkeypatch):
    monkeypatch.setattr("stages.respond_opponent.STOP", "~")  # of one byte: a random model comes upon it
    make_base(project / "models/base")
    more = {**ANSWERING, "max_new_tokens": 40, "repetition_penalty": 1.0, "temperature": 2.0, "top_p": 1.0}
    write_table(project / "data/prompts/test.parquet", prompts([f"{i}?" for i in range(30)]), PROMPT)
    write_params(project, respond={**more, "n_samples": 2},
                 opponents={"other": {"kind": "in_context", "path": "models/base"}})  # fmt: skip
    main("other")
    table = read_table(project / "data/respond_opponent/other.parquet", RESPONSE)
    stopped = table.filter(finish_reason="stop")
    assert 0 < len(stopped) < len(table)
    assert not table["response"].str.contains("~", literal=True).any()
    assert stopped["n_tokens"].median() < 40  # nothing is decoded beyond


def test_examples_that_leave_no_room_are_one_sentence(project, examples):
    examples.write_text("x" * 200 + "{{dialogue}}")
    make_base(project / "models/base")
    with pytest.raises(InputError, match=r"models/base: a prompt with its examples must leave room .* of 128"):
        answers(project, kind="in_context", path="models/base")
