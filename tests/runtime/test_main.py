import subprocess
import sys
from pathlib import Path

import pytest

from stages.errors import InputError
from stages.runtime.main import run_command

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
