import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.runtime.workers import workers
from tests.workspace import ROOT

SLEEPS = """
import os, sys, time
from stages.runtime.workers import workers
def note(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(60)
if __name__ == "__main__":
    with workers(2) as do:
        list(do(note, [sys.argv[1] + "/a"]))
"""


def fail(_):
    raise InputError("a: must be b, got c; mend it")


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_worker_is_this_process():
    with workers(1) as do:
        assert list(do(lambda _: os.getpid(), [0])) == [os.getpid()]


@pytest.mark.slow
def test_results_come_in_order_from_other_processes_and_the_environment_is_as_before():
    before = dict(os.environ)
    with workers(2) as do:
        assert list(do(abs, [-3, 2, -1])) == [3, 2, 1]
    assert dict(os.environ) == before


@pytest.mark.slow
def test_an_error_comes_through_and_a_killed_worker_is_one_sentence():
    with pytest.raises(InputError, match="a: must be b"), workers(2) as do:
        list(do(fail, [0]))
    with pytest.raises(InputError, match=r"a worker process was killed.*memory_mb"), workers(2) as do:
        list(do(die, [0]))


@pytest.mark.slow
def test_workers_end_when_their_parent_was_killed(tmp_path):
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    run = subprocess.Popen(
        [sys.executable, tmp_path / "sleeps.py", tmp_path], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    note = tmp_path / "a"
    while not note.exists() or not note.read_text():
        time.sleep(0.05)
    run.kill()
    run.wait()
    pid = int(note.read_text())
    for _ in range(200):
        if not is_running(pid):
            return
        time.sleep(0.1)
    raise AssertionError("it is still there")


def is_running(pid):
    """Whether a process is there and is no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
