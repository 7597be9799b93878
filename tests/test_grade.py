"""grade: the stage as a whole, on files."""

from pathlib import Path

import pytest

from stages import grade
from stages.common.errors import JudgeError, ParamsError
from stages.common.files import read_table
from stages.common.params import load_params
from stages.core.judging import Grade, Submission
from stages.schema import GRADE
from tests.judged_run import prompts, responses, write_run

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_every_answer_is_graded() -> None:
    grade.main("bulk")
    table = read_table(Path("data/grade/bulk.parquet"), GRADE)
    assert table.select("prompt_id", "helpfulness", "outcome", "safe", "unscored_reason").rows() == [
        ("test:p0", 6, "Excellent", None, None),
        ("test:p1", 1, "Fail", None, None),
        ("test:p2", 3, "Pass", None, None),
        ("test:p3", 6, "Excellent", None, None),
        ("test:p4", None, None, None, "no_reference"),
    ]
    assert set(table["responder"]) == {"bulk"}


def test_an_annotator_that_cannot_grade_is_an_error(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace('"grade": {"annotators": ["reference"]}', '"grade": {"annotators": ["length"]}'))
    assert params.read_text() != text
    with pytest.raises(ParamsError, match="a grade needs an annotator of kind reference or openai"):
        grade.main("bulk")


def test_a_table_of_which_more_than_half_failed_is_not_made() -> None:
    def fail(submissions: list[Submission]) -> list[Grade]:
        return [Grade(4, "Pass"), *(Grade(None, None, unscored_reason="unanswered") for _ in submissions[1:])]

    frames = grade.Frames(prompts("test", 3, n_bare=0), responses("x", ["a", "b", "c"]))
    with pytest.raises(JudgeError, match=r"data/grade/x\.parquet: .* got 2 of 3 unscored .* `dvc repro` asks for"):
        grade.run(frames, arm="x", graders={"gpt": fail})


def test_the_params_model_is_the_committed_section() -> None:
    assert load_params("grade", grade.Params, path=ROOT / "params.yaml").annotators
