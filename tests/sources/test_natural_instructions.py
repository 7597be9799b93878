import json
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.core.rows import Tally
from stages.sources import natural_instructions
from stages.sources.natural_instructions import files, read

ORIGIN = Path(__file__).parents[2] / "../shared/data/origin/natural_instructions"


def put(folder, *instances, name="task1_a", **fields):
    languages = {key: ["English"] for key in ("Input_language", "Output_language", "Instruction_language")}
    task = {"Definition": ["Do it."], **languages, "Instances": list(instances)} | fields
    (folder / f"{name}.json").write_text(json.dumps({key: value for key, value in task.items() if value is not None}))


def rows(folder, max_post_chars=1000, memory_bytes=2**24):
    tally = Tally(natural_instructions.UNIT)
    limits = {"max_post_chars": max_post_chars, "memory_bytes": memory_bytes}
    found = [row for path in files(folder) for row in read(path, source="n", tally=tally, **limits)]
    assert tally.n_read == len(found) + tally.left_out.total()
    return found, tally


def test_a_row_is_definition_input_and_first_output(tmp_path):
    put(
        tmp_path,
        {"id": "task1-f", "input": " in ", "output": ["one", "two"]},
        URL=["http://d"],
        Contributors=["Ann", "Bo"],
        **{"Instance License": ["MIT"]},
    )
    (row,), _ = rows(tmp_path)
    assert (row.id, row.domain, row.group) == ("n:task1-f", "task1_a", "natural_instructions")
    assert [turn["content"] for turn in row.messages] == ["Do it.\n\nin", "one"]
    assert (row.url, row.author, row.license, row.created, row.score) == ("http://d", "Ann, Bo", "MIT", None, None)


def test_irregular_fields_survive(tmp_path):
    put(tmp_path, {"input": ["in"], "output": "one"}, Definition="Do it.", Input_language="English", Categories="x")
    (row,), _ = rows(tmp_path)
    assert (row.id, row.license, row.messages[1]["content"]) == ("n:task1_a/0", None, "one")


def test_what_cannot_be_an_example_is_left_out_and_counted(tmp_path):
    put(
        tmp_path,
        {"id": "a", "input": "in", "output": []},
        {"id": "b", "input": " ", "output": ["x"]},
        {"id": "c", "input": "x" * 1000, "output": ["x"]},
        {"id": "d", "input": "in", "output": ["x" * 1000]},
    )
    put(tmp_path, {"id": "e", "input": "in", "output": ["x"]}, name="task2_b", Output_language=["French"])
    put(tmp_path, {"id": "f", "input": "in", "output": ["x"]}, name="task3_c", Input_language=None)
    found, tally = rows(tmp_path)
    assert [row.id for row in found] == ["n:d"]
    assert tally.left_out == {
        "without input or output": 2,
        "over 1,000 characters": 1,
        "not in English, or in a language not named": 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be a task"),
        ('{"Definition": [], "Instances": {}}', "must be a task"),
        (
            '{"Definition": [], "Instances": [3], "Input_language": "English", "Output_language": "English", '
            '"Instruction_language": "English"}',
            "instance 0 must be an object, got int",
        ),
        (
            '{"Definition": [{}], "Instances": [{"input": "a", "output": "b"}], "Input_language": "English", '
            '"Output_language": "English", "Instruction_language": "English"}',
            "Definition must be text or a list of texts",
        ),
    ],
)
def test_files_of_another_form_are_one_sentence(tmp_path, text, message):
    (tmp_path / "task1_a.json").write_text(text)
    with pytest.raises(InputError, match=rf"task1_a\.json: .*{message}"):
        rows(tmp_path)


def test_a_task_that_would_not_fit_in_memory_is_refused(tmp_path):
    put(tmp_path, {"input": "in", "output": "x" * 2000})
    n_bytes = (tmp_path / "task1_a.json").stat().st_size
    assert len(rows(tmp_path, 10_000, memory_bytes=3 * n_bytes)[0]) == 1
    with pytest.raises(
        InputError, match=r"task1_a\.json: a task must have at most [\d,]+ bytes, a third of `extract\."
    ):
        rows(tmp_path, 10_000, memory_bytes=3 * n_bytes - 1)


@pytest.mark.skipif(not ORIGIN.exists(), reason="needs ../shared/data")
def test_the_real_tasks_are_read_whole():
    found, tally = rows(ORIGIN, max_post_chars=200_000)
    assert tally.n_read == len(found) == 3428
    assert {row.license for row in found if row.domain.startswith("task875")} == {None}
    assert len({row.id for row in found}) == len(found)


def test_text_that_no_utf8_file_can_hold_becomes_storable(tmp_path):
    put(
        tmp_path, {"id": "\ud800", "input": "\ud800", "output": "x"}, {"input": "a", "output": "b"}, name="task1_\udcff"
    )
    named, unnamed = rows(tmp_path)[0]
    assert (named.id, named.domain, named.messages[0]["content"]) == ("n:\ufffd", "task1_\ufffd", "Do it.\n\n\ufffd")
    assert unnamed.id == "n:task1_\ufffd/1"
