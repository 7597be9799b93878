"""The openai package against a real OpenAI-compatible server with a model: `transformers serve` on loopback."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common import files
from stages.common.params import check_section
from stages.core.judging import Answer, Comparison, Prompt, Submission
from stages.core.replies import material, read_choice, read_grade
from stages.core.reply import Reply
from stages.runtime.annotators import Annotators, comparer, grader
from stages.runtime.api.endpoint import Endpoint, Request, ask
from tests.tiny import make_base

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NULL_MODEL = ROOT / "../shared/data/judging/alpaca_eval/NullModel.constant_output.txt"
TEMPLATE = "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and model folder of a server with a random model of one token a byte."""
    root = tmp_path_factory.mktemp("served")
    folder = make_base(root / "model")
    for name, change in (
        ("config.json", {"max_position_embeddings": 4096}),
        ("tokenizer_config.json", {"chat_template": TEMPLATE, "model_max_length": 4096}),
    ):
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (root / "hf/hub").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", folder, "--host", "127.0.0.1", "--port", port]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hf")}
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [*map(str, command), "--device", "cpu"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, root / "log")
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"no server after two minutes: {log.read_text()[-2000:]}")


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CACHE", tmp_path / ".cache")
    monkeypatch.chdir(ROOT)


def values(served: tuple[str, Path]) -> dict:
    return {
        "base_url": served[0], "model": str(served[1]), "api_key_env": None, "concurrency": 2, "timeout_s": 60.0,
        "max_attempts": 2, "price": {"input": 1.0, "output": 1.0}, "max_cost": 1.0, "batch": None,
    }  # fmt: skip


def test_a_real_server_answers_and_counts(served: tuple[str, Path]) -> None:
    endpoint = Endpoint.model_validate(values(served))
    sampling = {"temperature": 0.0, "max_completion_tokens": 5}
    asked = [Request([{"role": "user", "content": f"Say {i}."}], sampling, lambda reply: True) for i in range(4)]
    replies = ask(asked, endpoint, desc="t")
    for i, reply in enumerate(replies):
        assert isinstance(reply, Reply), reply
        assert reply.finish_reason in ("length", "stop")
        # one token a byte, and the one that begins a text
        assert reply.n_prompt_tokens in (len(f"user: Say {i}.\nassistant:") + begun for begun in (0, 1))
        assert reply.n_reply_tokens is not None
        assert 0 < reply.n_reply_tokens <= 5
        assert reply.n_prompt_tokens <= asked[i].size().n_bytes + 100  # what was set aside for it
    assert ask(asked, endpoint, desc="t") == replies


def test_a_model_that_knows_nothing_is_unscored_and_says_what_it_cost(served: tuple[str, Path]) -> None:
    annotator = {
        **values(served), "kind": "openai", "temperature": 0.0, "max_reply_tokens": 8, "structured": False,
    }  # fmt: skip
    annotators = check_section({"real": annotator}, Annotators, section="annotators", path=Path("params.yaml"))
    pair = Comparison(Prompt("p:1", "Which town?"), Answer("Vola", "eot"), Answer("Brum", "eot"))
    (choice,) = comparer("real", annotators)([pair])
    assert choice.unscored_reason in ("truncated", "off_menu")
    said = choice.receipt
    assert said.n_prompt_tokens is not None
    assert said.n_reply_tokens is not None
    assert said.cost == (said.n_prompt_tokens + said.n_reply_tokens) / 1e6
    assert said.model


@pytest.mark.skipif(not NULL_MODEL.is_file(), reason="needs ../shared/data")
def test_a_model_that_repeats_the_null_models_answer_gives_it_no_verdict(
    served: tuple[str, Path],
) -> None:
    """In both orders and as a grade; one token a byte, so that it reads and writes whatever there is."""
    trick = NULL_MODEL.read_text()
    model = {**values(served), "kind": "openai", "temperature": 0.0, "max_reply_tokens": 60, "structured": False}
    annotators = check_section({"real": model}, Annotators, section="annotators", path=Path("params.yaml"))
    null, honest = Answer(trick, "eot"), Answer("Vola", "eot")
    pairs = [Comparison(Prompt("p:1", "Which?"), *sides) for sides in ((null, honest), (honest, null))]
    choices = comparer("real", annotators)(pairs)
    (grade,) = grader("real", annotators)([Submission(Prompt("p:1", "Which?"), null)])
    assert [choice.position for choice in choices] == [None, None]
    assert grade.helpfulness is None
    for said in (*choices, grade):
        assert said.receipt.n_prompt_tokens is not None
        assert said.receipt.n_prompt_tokens > 500  # the whole of it was read
        assert said.receipt.reply is not None
        # and if the reply were what the trick asks for, or the trick itself:
        for reply in (trick, material(trick), "M", f"{said.receipt.reply}\nM", said.receipt.reply + material(trick)):
            told = Reply(reply, "stop", None, "m", 1, 1)
            assert read_choice(told).position is None
            assert read_choice(told, is_json=True).position is None
            assert read_grade(told, is_safety=False).helpfulness is None
