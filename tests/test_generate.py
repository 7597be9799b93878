import math
import shutil

import pytest
import torch

from stages.common.errors import InputError
from stages.common.files import empty_table, read_table, write_table
from stages.core.chat import ChatFormat
from stages.generate import main, perplexity
from stages.runtime.answering import Answerer
from stages.runtime.model import load_model, save_model
from stages.runtime.tokenizer import load_tokenizer
from stages.schema import ASKED, EPOCH_RESPONSE, EXAMPLE, PERPLEXITY, PROMPT
from stages.sft import add_eot
from tests.runtime.chat_server import completion, endpoint, serving
from tests.tiny import ANSWERING, CHAT, examples, make_base, prompts, write_examples, write_params


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    base = make_base(folder / "base")
    model, tokenizer = load_model(base), load_tokenizer(base).with_eot("<|eot|>")
    add_eot(model, tokenizer)
    save_model(model, folder / "epoch")
    tokenizer.save(folder / "epoch")
    return folder / "epoch"


@pytest.fixture
def project(tuned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for epoch in (2, 10):
        shutil.copytree(tuned, tmp_path / f"models/sft/curated/epoch_{epoch:02d}")
    write_table(tmp_path / "data/prompts/dev.parquet", prompts(["Hi", "Who?", "Why so?"], split="dev"), PROMPT)
    write_examples(tmp_path / "data/sample/curated.heldout.parquet", [("Hi", "Yo"), ("Who?", "Me")])
    write_params(tmp_path, render=CHAT, generate={**ANSWERING, "n_samples": 2})
    return tmp_path


def test_every_candidate_answers_every_prompt_as_often_as_asked(project):
    main("curated")
    table = read_table(project / "data/generate/curated.parquet", EPOCH_RESPONSE)
    keys = table.select("epoch", "prompt_id", "sample").rows()
    assert keys == [(e, f"authored:dev{i:03d}", s) for e in (2, 10) for i in range(3) for s in range(2)]
    assert table["n_tokens"].max() <= ANSWERING["max_new_tokens"]
    assert set(table["finish_reason"]) <= {"eot", "eos", "length"}
    measured = read_table(project / "data/generate/curated.perplexity.parquet", PERPLEXITY)
    assert measured["epoch"].to_list() == [2, 10]
    assert measured["n_tokens"].to_list() == [6, 6]


def test_the_same_weights_give_the_same_answers_whatever_the_batch(project):
    main("curated")
    first = read_table(project / "data/generate/curated.parquet", EPOCH_RESPONSE)
    write_params(project, render=CHAT, generate={**ANSWERING, "n_samples": 2, "batch_size": 1})
    shutil.rmtree(project / ".cache")
    main("curated")
    assert read_table(project / "data/generate/curated.parquet", EPOCH_RESPONSE).equals(first)


def test_perplexity_is_exp_of_the_mean_cost_of_response_tokens(tuned):
    answerer = Answerer(tuned, precision="fp32")
    pairs = [("Hi", "Yo"), ("Who?", "Me again")]
    measured = perplexity(answerer, examples(pairs), ChatFormat(**CHAT))
    costs = []
    for ask, reply in pairs:
        prompt = [1, *answerer.tokenizer.encode(ask), answerer.tokenizer.eot_id]
        response = [*answerer.tokenizer.encode(reply), answerer.tokenizer.eot_id]
        with torch.inference_mode():
            logp = answerer.model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        costs += [-logp[len(prompt) + i - 1, token].item() for i, token in enumerate(response)]
    assert measured["n_tokens"] == len(costs)
    on_all = ChatFormat(**{**CHAT, "loss_on": "all"})
    assert perplexity(answerer, examples(pairs), on_all) == measured
    assert measured["perplexity"] == pytest.approx(math.exp(sum(costs) / len(costs)), rel=1e-5)


def test_perplexity_of_nothing_is_absent(tuned):
    nothing = perplexity(Answerer(tuned, precision="fp32"), empty_table(EXAMPLE), ChatFormat(**CHAT))
    assert nothing == {"perplexity": None, "n_tokens": 0}


def test_an_arm_without_candidates_is_one_sentence(project):
    shutil.rmtree(project / "models/sft/curated")
    with pytest.raises(InputError, match="no epoch_NN"):
        main("curated")


def test_an_endpoint_that_serves_the_epochs_answers_and_measures_no_perplexity(project):
    with serving(lambda body, _: completion(body["model"])) as server:
        write_params(project, render=CHAT, generate={**ANSWERING, "endpoint": endpoint(server)})
        main("curated")
    table = read_table(project / "data/generate/curated.parquet", EPOCH_RESPONSE)
    assert {(e, r) for e, r in table.select("epoch", "response").rows()} == {
        (epoch, f"models/sft/curated/epoch_{epoch:02d}") for epoch in (2, 10)
    }
    measured = read_table(project / "data/generate/curated.perplexity.parquet", PERPLEXITY)
    assert measured.rows() == [(2, None, 0), (10, None, 0)]
    asked = read_table(project / "data/generate/curated.asked.parquet", ASKED)
    assert asked["request"].n_unique() == table.height
    assert set(asked["responder"]) == {"curated"}


def test_a_dry_run_of_an_endpoint_tells_each_epochs_cost_and_answers_nothing(project, capsys):
    with serving(lambda *_: completion("x")) as server:
        write_params(project, render=CHAT, generate={**ANSWERING, "endpoint": endpoint(server)})
        main("curated", dry_run=True)
        assert server.bodies == []
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert "to ask of models/sft/curated/epoch_02, about" in told[0]
    write_params(project, render=CHAT, generate=ANSWERING)
    main("curated", dry_run=True)
    assert (
        capsys.readouterr().out == "answer curated, epoch 2: costs nothing\nanswer curated, epoch 10: costs nothing\n"
    )
    assert not (project / "data/generate").exists()
