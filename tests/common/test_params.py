from pathlib import Path

import pytest
from pydantic import Field

from stages.common.errors import ParamsError
from stages.common.params import SECTIONS, load_params, read_yaml
from stages.common.section import Section
from stages.core.arms import Arms


class Rate(Section):
    n: int
    share: float = Field(ge=0, le=1)


class Nested(Section):
    rates: dict[str, Rate]


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
        ("judge: {}", "score: missing, the top level has only judge; add it, profiles/miniature.yaml has an example"),
        ("{}", "score: missing, the top level has {}; add it"),
        (
            "scor: {n: 1}\nscore: {}",
            "scor: unknown section, got {'n': 1}; remove it, or correct it to one of annotators",
        ),
        (f"scor: {'x' * 80}", f"scor: unknown section, got '{'x' * 56}...; remove it"),
        ("", "must be a map of sections, got nothing; `python -m stages.profile miniature` brings the defaults back"),
        ("[score]", "must be a map of sections, got ['score']; `python"),
        ("score: 3", "score: must be a valid dictionary"),
    ],
)
def test_a_fault_names_key_value_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    assert told(tmp_path, text).startswith(message)


def test_a_fault_below_a_missing_section_names_both(tmp_path: Path) -> None:
    for text, has in (
        ("arms: {a: {sft: {}}}", "arms.a has only sft"),
        ("arms: 3", "arms has 3"),
        ("arms:", "arms has noth"),
    ):
        section = "arms.a.sample" if "arms.a" in has else "arms.a"
        assert told(tmp_path, text, section).startswith(f"{section}: missing, {has}")


@pytest.mark.parametrize(
    ("model", "text", "known"),
    [
        (Arms, "{a: {sample: {}, sft: {}, x: 1}}", "sample, sft"),
        (Nested, "{rates: {a: {n: 1, share: 1, x: 1}}}", "n, share"),
    ],
)
def test_what_is_known_is_told_below_the_keys_of_a_map_too(
    model: type[Section], text: str, known: str, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(f"arms: {text}")
    with pytest.raises(ParamsError, match=rf"a\.x: unknown key, got 1; remove it \(known here: {known}\)"):
        load_params("arms", model, path=tmp_path / "params.yaml")


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
