import json

import pytest

from stages.common.errors import InputError
from stages.core.rows import Candidate, Prompt, Tally
from stages.sources import authored
from stages.sources.authored import read

ASK = {"role": "user", "content": "Why?"}
REPLY = {"role": "assistant", "content": "So."}


def put(folder, split, *lines):
    (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))


def line(id_="1", messages=(ASK,), **more):
    return {"id": id_, "topic": "life", "messages": list(messages), **more}


def rows(folder):
    tally = Tally(authored.UNIT)
    found = list(read(folder, source="a", tally=tally))
    assert tally.n_read == len(found)
    return found


def test_train_gives_examples_and_the_others_prompts_of_their_split(tmp_path):
    put(tmp_path, "train", line("t", [ASK, REPLY, ASK, REPLY], format=True, license="CC0 1.0"))
    put(tmp_path, "dev", line("d", references=["So.", "Thus."]))
    put(tmp_path, "test", line("e", safety=True, malicious=True), line("f", [ASK, REPLY, ASK]))
    train, dev, test, dialogue = rows(tmp_path)
    assert isinstance(train, Candidate)
    assert (train.id, train.group, train.domain, train.license) == ("a:t", "authored", "life", "CC0 1.0")
    assert [turn["role"] for turn in train.messages] == ["user", "assistant"] * 2
    assert isinstance(dev, Prompt)
    assert (dev.split, dev.references, dev.safety, dev.malicious) == ("dev", ["So.", "Thus."], None, None)
    assert (test.split, test.references, test.safety, test.malicious) == ("test", None, True, True)
    assert dialogue.messages[-1]["role"] == "user"


@pytest.mark.parametrize(
    ("split", "bad", "message"),
    [
        ("train", line(messages=[ASK]), "messages of train must end with the assistant, got user"),
        ("dev", line(messages=[ASK, REPLY]), "messages of dev must end with the user, got assistant"),
        ("dev", line(messages=[REPLY]), "messages must alternate and begin with the user, got assistant"),
        ("dev", line(messages=[ASK, ASK, ASK]), "messages must alternate"),
        ("dev", line(messages=[]), "messages: List should have at least 1 item"),
        ("dev", line(messages=[ASK | {"content": ""}]), "messages.0.content: String should have at least 1 character"),
        ("dev", line(messages=[ASK | {"role": "system"}]), "messages.0.role"),
        ("dev", line(answer="x"), "answer: Extra inputs are not permitted"),
        ("dev", line(references="So."), "references: Input should be a valid list"),
        ("dev", line(safety=1), "safety: Input should be a valid boolean"),
        ("dev", line(malicious=True), "malicious must come with safety"),
        ("dev", line(id_=""), "id: String should have at least 1 character"),
        ("dev", line(created="1 May"), "created: String should match pattern"),
        ("dev", {"id": "1", "messages": [ASK]}, "topic: Field required"),
        ("train", line(messages=[ASK, REPLY], references=["x"]), "references must stand with prompts only"),
        ("dev", line("0"), "id must be unique, got '0'"),
        ("dev", [1], "must be a JSON object"),
    ],
)
def test_a_fault_names_file_line_rule_and_value(tmp_path, split, bad, message):
    put(tmp_path, split, line("0", [ASK, REPLY] if split == "train" else [ASK]), bad)
    with pytest.raises(InputError, match=rf"{split}\.jsonl, line 2: {message}"):
        rows(tmp_path)


def test_ids_are_unique_over_the_files(tmp_path):
    put(tmp_path, "dev", line("1"))
    put(tmp_path, "test", line("1"))
    with pytest.raises(InputError, match=r"test\.jsonl, line 1: id must be unique, got '1' of .*dev\.jsonl, line 1"):
        rows(tmp_path)


def test_text_that_no_utf8_file_can_hold_becomes_storable(tmp_path):
    put(tmp_path, "dev", line("\ud800", [ASK | {"content": "\ud800"}], author="\ud800", references=["\ud800"]))
    (row,) = rows(tmp_path)
    assert (row.id, row.author, row.references) == ("a:\ufffd", "\ufffd", ["\ufffd"])
    assert row.messages[0]["content"] == "\ufffd"


def test_dialogues_are_examples_of_a_group_of_their_own(tmp_path):
    put(tmp_path, "dialogues", line("d", [ASK, REPLY, ASK, REPLY]))
    (row,) = rows(tmp_path)
    assert (type(row), row.id, row.group, len(row.messages)) == (Candidate, "a:d", "authored_dialogue", 4)


def test_a_dialogue_ends_with_the_assistant(tmp_path):
    put(tmp_path, "dialogues", line("d", [ASK, REPLY, ASK]))
    with pytest.raises(InputError, match="messages of dialogues must end with the assistant, got user"):
        rows(tmp_path)
