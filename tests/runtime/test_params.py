from pathlib import Path

import pytest
from pydantic import Field

from stages.core.section import Section
from stages.errors import ParamsError
from stages.runtime.params import SECTIONS, load_params, read_yaml


class Rate(Section):
    n: int
    share: float = Field(ge=0, le=1)


def told(folder: Path, text: str, section: str = "score") -> str:
    path = folder / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        load_params(section, Rate, path=path)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_misspelt_key_is_named_and_not_only_missed(tmp_path: Path) -> None:
    assert told(tmp_path, "score: {n: 1, shar: 1}") == (
        "score.shar: unknown key, got 1; remove it (known here: n, share)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score: {n: 1}", "score.share: missing; add it, profiles/miniature.yaml has an example"),
        ("score: {n: x, share: 1}", "score.n: must be a valid integer, got 'x'; correct it there"),
        ("score: {n: 1, share: 1.5}", "score.share: must be less than or equal to 1, got 1.5; correct it there"),
        ("score: {n: 1, share: .nan}", "score.share: must be a finite number, got nan; correct it there"),
        ("judge: {}", "no 'score'; the top level has judge"),
        ("scor: {}\nscore: {n: 1, share: 1}", "scor: unknown section; remove it, or correct it to one of annotators"),
    ],
)
def test_a_fault_names_key_value_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    assert told(tmp_path, text).startswith(message)


def test_a_rate_as_dvc_writes_it_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("score: {n: 1, share: 1e-5}")
    assert load_params("score", Rate, path=tmp_path / "params.yaml").share == 1e-5


def test_the_sections_are_those_of_the_file() -> None:
    assert set(read_yaml(Path(__file__).parents[2] / "params.yaml")) == SECTIONS


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"a: \xff")
    for path in (tmp_path, tmp_path / "params.yaml"):
        with pytest.raises(ParamsError, match=rf"^{path}: cannot be read, .*; write it in UTF-8 and mend its rights$"):
            read_yaml(path)
