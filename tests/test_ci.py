"""What `.ci/run` holds the main job against."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def held(folder: Path, *, base: float = 0.05, curated: float = 0.7, low: float = 0.01) -> Any:
    """`.ci/effect.py` on these shares, bulk 10 points below curated."""
    apart = {"n": 300, "difference": 0.1, "low": low, "high": 0.2}
    accuracy = {"base": {"n": 300, "exact": base}, "curated": {"n": 300, "exact": curated}}
    (folder / "score.json").write_text(json.dumps({"accuracy": accuracy, "difference": {"bulk": {"exact": apart}}}))
    command = [sys.executable, ".ci/effect.py", str(folder / "score.json")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_job_that_shows_the_effect_passes(tmp_path: Path) -> None:
    done = held(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the effect is there\n", "")


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"base": 0.051}, "base: must answer at most 5 % exactly, got 5.1%"),
        ({"curated": 0.699}, "curated: must answer at least 70 % exactly, got 69.9%"),
        ({"low": 0.0}, "curated - bulk: the interval must be clear of 0, got 0.000 to 0.200"),
    ],
)
def test_a_job_that_does_not_is_one_sentence(shares: dict[str, float], sentence: str, tmp_path: Path) -> None:
    done = held(tmp_path, **shares)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{sentence}\n")


def test_a_difference_of_less_than_ten_points_is_refused(tmp_path: Path) -> None:
    held(tmp_path)
    path = tmp_path / "score.json"
    path.write_text(path.read_text().replace('"difference": 0.1,', '"difference": 0.099,'))
    command = [sys.executable, ".ci/effect.py", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "curated - bulk: must be at least 10 points, got 9.9\n")
