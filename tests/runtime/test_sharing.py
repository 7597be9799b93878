"""Processes that ask the same at once, and are killed: every question is paid for once."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from stages.common import files
from tests.runtime.chat_server import ChatServer, completion, serving

ROOT = Path(__file__).parents[2]
N = 60
SCRIPT = """
import sys
from stages.runtime.api.endpoint import Endpoint, Request, ask
endpoint = Endpoint(base_url=sys.argv[1], model="judge-1", api_key_env=None, concurrency=3, timeout_s=5.0,
                    max_attempts=2, price=None, max_cost=None, batch=None)
asked = [Request([{"role": "user", "content": f"q{i}"}], {}, lambda reply: True) for i in range(60)]
print([getattr(reply, "text", "none") for reply in ask(asked, endpoint, desc="t")])
"""
ANSWERS = f"{[f're q{i}' for i in range(N)]}"


def start(server: ChatServer, root: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "DVC_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, server.base_url]
    return subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True)


def last_line(process: "subprocess.Popen[str]") -> str:
    return process.communicate(timeout=60)[0].splitlines()[-1]


def echo_slowly(body: dict, _: int):
    return completion(f"re {body['messages'][-1]['content']}", delay_s=0.04)


def test_two_processes_ask_each_question_once(tmp_path: Path) -> None:
    with serving(echo_slowly) as server:
        processes = [start(server, tmp_path) for _ in range(2)]
        assert [last_line(process) for process in processes] == [ANSWERS] * 2
        assert Counter(server.asked) == Counter(f"q{i}" for i in range(N))
    assert list((tmp_path / ".cache/askers").iterdir()) == []


def test_of_a_killed_process_only_what_was_under_way_is_asked_again(tmp_path: Path) -> None:
    with serving(echo_slowly) as server:
        first, second = start(server, tmp_path), start(server, tmp_path)
        while len(server.asked) < 15:
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        third = start(server, tmp_path)
        assert [last_line(process) for process in (second, third)] == [ANSWERS] * 2
        n_asked = Counter(server.asked)
    assert set(n_asked) == {f"q{i}" for i in range(N)}
    assert sum(n_asked.values()) <= N + 3  # the three under way at the kill


def test_a_folder_that_a_temporary_experiment_lacks_is_that_of_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "project/.dvc/tmp/exps/standalone/tmpab12"
    for folder in (tmp_path / "dumps", tmp_path / "project/dumps", tmp_path / "project/data", workspace / "data"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(files, "CACHE", Path(".cache"))  # as without DVC_ROOT
    monkeypatch.chdir(workspace)
    assert files.named_folder("dumps") == tmp_path / "project/dumps"
    assert files.named_folder("../dumps").resolve() == tmp_path / "dumps"
    assert files.named_folder("data") == Path("data")  # of the commit that the experiment is about
    assert files.named_folder(str(tmp_path / "dumps")) == tmp_path / "dumps"
    assert files.named_folder("gone") == Path("gone")
    monkeypatch.chdir(tmp_path / "project")
    assert files.named_folder("dumps") == Path("dumps")


@pytest.mark.parametrize(
    ("root", "shared"),
    [
        ("project", "project/.cache"),
        ("project/.dvc/tmp/exps/standalone/tmpab12", "project/.cache"),
        ("project/.dvc/tmp/exps/tmpab12", "project/.cache"),
        ("repo/project/.dvc/tmp/exps/tmpab12/project", "repo/project/.cache"),
        ("project/tmp/exps/x", "project/tmp/exps/x/.cache"),
    ],
)
def test_a_temporary_experiment_shares_its_projects_cache(
    root: str, shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CACHE", tmp_path / root / ".cache")
    assert files.shared_cache() == tmp_path / shared
