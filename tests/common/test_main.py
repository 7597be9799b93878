import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.common.main import run_command

ROOT = Path(__file__).parents[2]
KEYED = {
    "arm": ["sample", "render", "sft", "generate", "select_checkpoint", "respond", "grade"],
    "opponent": ["respond_opponent", "judge"],
    "source": ["pull", "extract"],
}


def stage(name, *arguments):
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KEYED.items() for name in names])
def test_an_unknown_key_is_one_sentence_with_those_there_are(kind, name):
    done = stage(name, "nonesuch")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: params.yaml: {kind}s: no 'nonesuch'; it has ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "params.yaml: must be a map of sections, got nothing; `python -m stages.profile miniature` brings"),
        ("[1, 2]", "params.yaml: must be a map of sections, got [1, 2]; "),
        ("arms: 3", "params.yaml: arms: must be a map, got 3; correct it there"),
        ("arms: [curated]", "params.yaml: arms: must be a map, got ['curated']; correct it there"),
        ("arms: {1: {}}", "params.yaml: arms: no 'curated'; it has 1"),
    ],
)
def test_a_file_of_another_form_is_one_sentence(text, told, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    command = [sys.executable, "-m", "stages.grade", "curated"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"error: {told}")


def test_help_is_the_contract():
    done = stage("render", "--help")
    assert "render: write one arm's training set" in done.stdout
    assert "a key of `arms` in params.yaml" in done.stdout


def fail_with(error):
    def command():
        raise error

    return command


def test_a_fault_is_one_line_and_status_1(capsys):
    assert run_command(fail_with(InputError("a.csv: broken\n  in two lines"))) == 1
    assert capsys.readouterr().err == "error: a.csv: broken in two lines\n"


def test_an_interrupt_is_status_130(capsys):
    assert run_command(fail_with(KeyboardInterrupt())) == 130
    assert "interrupted" in capsys.readouterr().err
