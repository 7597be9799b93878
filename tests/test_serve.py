"""The exported folder behind `transformers serve`, as a user would start it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import BadRequestError, InternalServerError, OpenAI

from stages import render, sft
from tests.families import make_family
from tests.tiny import CHAT, SFT, write_examples, write_params

pytestmark = pytest.mark.slow

ASK, REPLY = "What is it?", "a river"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A selected model that knows one answer by heart."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_family("llama", root / "models/base")
        write_examples(root / "data/sample/curated.parquet", [(ASK, REPLY)])
        arm = {"epochs": 60, "candidate_epochs": [60]}
        write_params(root, render=CHAT, sft=SFT, arms={"curated": {"sample": {}, "sft": arm}})
        render.main("curated")
        sft.main("curated")
        yield root / "models/sft/curated/epoch_60"


@pytest.fixture(scope="module")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """A client of a real server on loopback."""
    home = tmp_path_factory.mktemp("hf")
    (home / "hub").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command = [Path(sys.executable).with_name("transformers"), "serve", folder, *where]
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    url = f"http://127.0.0.1:{port}"
    with (home / "log").open("w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as server:
        try:
            deadline = time.monotonic() + 120
            while not _answers(f"{url}/health"):
                assert server.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.2)
            yield OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def test_it_answers_and_stops_at_the_end_of_turn(client: OpenAI, folder: Path) -> None:
    done = client.chat.completions.create(
        model=str(folder), messages=[{"role": "user", "content": ASK}], max_tokens=24, temperature=0
    )
    assert (done.choices[0].message.content or "").strip() == REPLY
    assert done.choices[0].finish_reason == "stop"


def test_it_streams_the_same(client: OpenAI, folder: Path) -> None:
    parts = client.chat.completions.create(
        model=str(folder), messages=[{"role": "user", "content": ASK}], max_tokens=24, temperature=0, stream=True
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text.strip() == REPLY


def test_a_dialogue_that_the_format_cannot_say_is_an_error(client: OpenAI, folder: Path) -> None:
    with pytest.raises((BadRequestError, InternalServerError)):
        client.chat.completions.create(model=str(folder), messages=[{"role": "system", "content": "x"}], max_tokens=4)
