import json

import polars as pl
import pytest

from stages.errors import InputError, ParamsError
from stages.respond_opponent import main
from stages.runtime.files import read_table, write_table
from stages.schema import PROMPT, RESPONSE
from tests.tiny import DECODING, make_base, prompts, write_params

TEXTS = ["Hi", "Who?"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "data/prompts/test.parquet", prompts(TEXTS), PROMPT)
    return tmp_path


def answers(project, *, kind="responses", path):
    write_params(project, respond=DECODING, opponents={"other": {"kind": kind, "path": path}})
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
    with pytest.raises(ParamsError, match="opponents has base"):
        main("other")
