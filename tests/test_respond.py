import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from stages.common.errors import InputError
from stages.common.files import empty_table, read_table, write_table
from stages.respond import main
from stages.runtime.answering import Answerer
from stages.schema import ASKED, PROMPT, RESPONSE
from tests.runtime.chat_server import completion, endpoint, serving
from tests.tiny import ANSWERING, make_base, prompts, write_params
from tests.workspace import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_base(tmp_path / "models/selected/curated")
    write_table(tmp_path / "data/prompts/test.parquet", prompts(["Hi", "Who?", "Why so?", "No"]), PROMPT)
    write_params(tmp_path, respond=ANSWERING)
    return tmp_path


def test_each_test_prompt_gets_one_answer(project):
    main("curated")
    table = read_table(project / "data/respond/curated.parquet", RESPONSE)
    assert table["prompt_id"].to_list() == [f"authored:test{i:03d}" for i in range(4)]
    assert set(table["responder"]) == {"curated"}
    assert table["response"].str.strip_chars().equals(table["response"])


def test_the_seed_decides_what_is_sampled(project):
    texts = []
    for seed in (0, 0, 1):
        write_params(project, respond={**ANSWERING, "temperature": 2.0, "seed": seed})
        main("curated")
        texts.append(read_table(project / "data/respond/curated.parquet", RESPONSE)["response"].to_list())
    assert texts[0] == texts[1] != texts[2]


def test_an_answer_stays_when_other_prompts_go(project):
    main("curated")
    whole = read_table(project / "data/respond/curated.parquet", RESPONSE)
    write_table(project / "data/prompts/test.parquet", prompts(["Hi", "Who?"]), PROMPT)
    shutil.rmtree(project / ".cache")
    main("curated")
    assert read_table(project / "data/respond/curated.parquet", RESPONSE).equals(whole.head(2))


def test_a_prompt_beyond_the_models_positions_gets_an_empty_answer_that_says_length(project):
    write_table(project / "data/prompts/test.parquet", prompts(["x" * 400, "Hi"]), PROMPT)
    main("curated")
    first = read_table(project / "data/respond/curated.parquet", RESPONSE).row(0, named=True)
    assert (first["response"], first["finish_reason"], first["n_tokens"]) == ("", "length", 0)


def test_no_prompts_is_one_sentence(project):
    write_table(project / "data/prompts/test.parquet", empty_table(PROMPT), PROMPT)
    with pytest.raises(InputError, match="no prompts to answer"):
        main("curated")


def log_lines(project):
    (path,) = (project / ".cache/answers").iterdir()
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.strip()]


def test_finished_answers_are_not_given_again(project):
    main("curated")
    whole = (project / "data/respond/curated.parquet").read_bytes()
    (path,) = (project / ".cache/answers").iterdir()
    lines = log_lines(project)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:-9])  # the third was being written
    main("curated")
    assert (project / "data/respond/curated.parquet").read_bytes() == whole
    again = log_lines(project)
    assert again[:2] == lines[:2]
    assert len(again) == 2 + 1 + 2


def test_where_every_answer_is_kept_no_weights_are_loaded(project, monkeypatch):
    main("curated")
    whole = (project / "data/respond/curated.parquet").read_bytes()
    monkeypatch.setattr(Answerer, "model", property(lambda _: pytest.fail("loaded")))
    main("curated")
    assert (project / "data/respond/curated.parquet").read_bytes() == whole


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(project):
    texts = [f"{'Who? ' * (i % 9)}{i}" for i in range(100)]
    write_table(project / "data/prompts/test.parquet", prompts(texts), PROMPT)
    write_params(project, respond={**ANSWERING, "max_new_tokens": 60, "batch_size": 8})
    command = [sys.executable, "-m", "stages.respond", "curated"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=project, env=environment)
    deadline = time.monotonic() + 120
    while not (list((project / ".cache").glob("answers/*")) and len(log_lines(project)) > 5):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = log_lines(project)
    assert not (project / "data/respond/curated.parquet").exists()
    assert 5 < len(kept) < 100
    main("curated")
    resumed = (project / "data/respond/curated.parquet").read_bytes()
    assert len(log_lines(project)) in (100, 101)  # the line that the kill cut off, if it cut one
    shutil.rmtree(project / ".cache")
    main("curated")
    assert (project / "data/respond/curated.parquet").read_bytes() == resumed


def test_an_endpoint_that_serves_the_checkpoint_answers(project):
    def behave(body, _n_before):
        return completion(f"{body['model']}: {body['messages'][-1]['content']}")

    with serving(behave) as server:
        write_params(project, respond={**ANSWERING, "endpoint": endpoint(server)})
        main("curated")
    table = read_table(project / "data/respond/curated.parquet", RESPONSE)
    assert table.row(0, named=True)["response"] == "models/selected/curated: Hi"
    assert set(table["responder"]) == {"curated"}
    asked = read_table(project / "data/respond/curated.asked.parquet", ASKED)
    assert asked.select("prompt_id", "model").rows() == [(key, "judge-1-2025-01-01") for key in table["prompt_id"]]


def test_a_dry_run_answers_nothing(project, capsys):
    with serving(lambda *_: completion("x")) as server:
        write_params(project, respond={**ANSWERING, "endpoint": endpoint(server)})
        main("curated", dry_run=True)
        assert server.bodies == []
    assert "to ask of models/selected/curated, about" in capsys.readouterr().out
    write_params(project, respond=ANSWERING)
    main("curated", dry_run=True)
    assert capsys.readouterr().out == "answer curated: costs nothing\n"
    assert not (project / "data/respond").exists()
