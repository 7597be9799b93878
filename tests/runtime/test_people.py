"""People's files."""

from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.runtime.people import read_people

LINE = '{"prompt_id": "p:1", "sample": 0, "a": "x", "b": "y", "annotator": "ann", "preference": "tie"}'


def test_files_are_read_by_name_and_line(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(LINE + "\n")
    (tmp_path / "a.jsonl").write_text(
        "\n" + LINE.replace('"ann"', '"bo"').replace("}", ', "response_a": "hi"}') + "\n\n"
    )
    (tmp_path / "README.md").write_text("not a verdict")
    assert read_people(tmp_path).rows() == [
        ("p:1", 0, "x", "y", "bo", "tie", "hi", None),
        ("p:1", 0, "x", "y", "ann", "tie", None, None),
    ]


def test_an_empty_or_missing_folder_has_no_verdicts(tmp_path: Path) -> None:
    assert read_people(tmp_path).is_empty()
    assert read_people(tmp_path / "none").is_empty()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("not json", "a.jsonl:2: the line: Invalid JSON"),
        (LINE.replace('"tie"', '"A"'), "a.jsonl:2: preference: Input should be 'a', 'b' or 'tie', got 'A'"),
        (LINE.replace("0", '"0"'), "a.jsonl:2: sample: Input should be a valid integer"),
        (LINE.replace("0", "-1"), "a.jsonl:2: sample: "),
        (LINE.replace('"p:1"', '""'), "a.jsonl:2: prompt_id: "),
        (LINE.replace("}", ', "note": 1}'), "a.jsonl:2: note: Extra inputs are not permitted"),
        (LINE.replace('"annotator": "ann", ', ""), "a.jsonl:2: annotator: Field required"),
        ("[1]", "a.jsonl:2: "),
    ],
)
def test_a_line_that_is_no_verdict_is_named(line: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{LINE}\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_people(tmp_path)
    assert told in str(caught.value)
    assert str(caught.value).endswith("data/annotations/README.md has the format")


def test_the_example_in_the_readme_is_a_verdict(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "data/annotations/README.md").read_text()
    (tmp_path / "a.jsonl").write_text(readme.split("```json\n")[1].split("```")[0])
    assert read_people(tmp_path).height == 1


def test_text_in_another_encoding_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE.replace("ann", "ä").encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.jsonl: not readable as UTF-8 text"):
        read_people(tmp_path)
