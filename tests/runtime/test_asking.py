import re

import pytest
from pydantic import ValidationError

from stages.common.errors import InputError, JudgeError
from stages.common.files import empty_table
from stages.core.sampling import Decoding
from stages.runtime.api.endpoint import Request
from stages.runtime.asking import Answered, Generator, answer, checkpoint_questions, questions, tell_cost
from stages.schema import ASKED, PROMPT
from tests.runtime.chat_server import completion, endpoint, fault, serving
from tests.tiny import DECODING, make_base, prompts

TEXTS = ["Hi", "Who?", "Why so?"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def generator(server, **changes):
    return Generator(**endpoint(server, **{"model": "other-1", **changes}))


def ask(*args, **kwargs) -> Answered:
    return answer(questions(*args, **kwargs))


def decoding(**changes):
    return Decoding(**{**DECODING, **changes})


def echo(body, _n_before):
    return completion(f" {body['messages'][-1]['content'].upper()} ")


def test_each_prompt_is_asked_and_its_answer_kept():
    with serving(echo) as server:
        first = ask(generator(server), prompts(TEXTS), decoding(), responder="other")
        again = ask(generator(server), prompts(TEXTS), decoding(), responder="other")
        assert len(server.bodies) == 3
    assert first.responses.equals(again.responses)
    assert first.asked.equals(again.asked)
    assert first.responses.rows() == [
        (f"authored:test{i:03d}", "other", 0, t.upper(), "eot", 3) for i, t in enumerate(TEXTS)
    ]


def test_what_is_sent_is_what_the_endpoint_is_said_to_take():
    everything = ["temperature", "top_p", "repetition_penalty", "seed"]
    with serving(echo) as server:
        for i, send in enumerate(([], ["top_p"], everything)):
            ask(generator(server, send=send, model=f"m{i}"), prompts(["Hi"]), decoding(), responder="x")
        plain, one, full = server.bodies
    message = [{"role": "user", "content": "Hi"}]
    assert plain == {"model": "m0", "messages": message, "max_completion_tokens": 8}
    assert one == {"model": "m1", "messages": message, "max_completion_tokens": 8, "top_p": 0.9}
    assert 0 <= full.pop("seed") < 2**31
    assert full == {**one, "model": "m2", "temperature": 0.7, "repetition_penalty": 1.2}


def test_a_system_message_comes_first():
    with serving(echo) as server:
        ask(generator(server), prompts(["Hi"]), decoding(), responder="x", system="Be brief.")
        (body,) = server.bodies
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_samples_and_prompts_have_seeds_of_their_own():
    with serving(echo) as server:
        asked = prompts(TEXTS)
        table, _ = ask(generator(server, send=["seed"]), asked, decoding(n_samples=2), responder="x")
        seeds = {(body["messages"][-1]["content"], body["seed"]) for body in server.bodies}
        assert len(seeds) == 6
        server.bodies.clear()
        ask(generator(server, send=["seed"], model="b"), asked.reverse(), decoding(), responder="x")
        assert {(body["messages"][-1]["content"], body["seed"]) for body in server.bodies} < seeds
    assert table["sample"].to_list() == [0, 1] * 3


def test_another_seed_asks_anew_even_where_it_is_not_sent():
    with serving(echo) as server:
        for seed in (0, 1, 0):
            ask(generator(server), prompts(["Hi"]), decoding(seed=seed), responder="x")
        assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("sent", "row"),
    [
        (completion("cut", finish_reason="length"), ("cut", "length", 3)),
        (completion("", finish_reason="content_filter"), ("", "refused", 3)),
        (completion(None, refusal="I won't."), ("I won't.", "eot", 3)),
        (completion(""), ("", "eot", 3)),
        (fault(400, "content_filter"), ("", "refused", None)),
        (fault(400, "context_length_exceeded"), ("", "length", None)),
    ],
)
def test_how_an_answer_ended(sent, row):
    with serving(lambda *_: sent) as server:
        table, _ = ask(generator(server), prompts(["Hi"]), decoding(), responder="x")
    assert table.select("response", "finish_reason", "n_tokens").rows() == [row]


def test_a_prompt_without_an_answer_stops_and_the_others_are_kept():
    faulty = {"Who?"}

    def behave(body, n_before):
        return fault(500) if body["messages"][-1]["content"] in faulty else echo(body, n_before)

    with serving(behave) as server:
        with pytest.raises(JudgeError, match="must answer every prompt, got none to 1 of 3"):
            ask(generator(server), prompts(TEXTS), decoding(), responder="x")
        faulty.clear()
        server.bodies.clear()
        assert len(ask(generator(server), prompts(TEXTS), decoding(), responder="x").responses) == 3
        assert [body["messages"][-1]["content"] for body in server.bodies] == ["Who?"]


def test_no_prompts_are_one_sentence():
    with serving(echo) as server, pytest.raises(InputError, match="no prompts to answer"):
        ask(generator(server), empty_table(PROMPT), decoding(), responder="x")


PRICE = {"price": {"input": 1.0, "output": 2.0}, "max_cost": 1.0}


def test_what_each_answer_rests_on_is_kept_with_its_cost():
    sent = {
        "Hi": completion("Hello"),
        "Who?": fault(400, "content_filter"),
        "Why so?": completion("cut", finish_reason="length"),
    }
    with serving(lambda body, _: sent[body["messages"][-1]["content"]]) as server:
        _, asked = ask(generator(server, **PRICE), prompts(TEXTS), decoding(), responder="other")
        free = ask(generator(server, model="b"), prompts(["Hi"]), decoding(), responder="other")
    assert dict(asked.schema) == ASKED
    cost = (7 + 3 * 2) / 1e6
    said = ("judge-1-2025-01-01", 7, 3, cost)
    assert asked.drop("request").rows() == [
        ("authored:test000", "other", 0, *said),
        ("authored:test001", "other", 0, None, None, None, None),
        ("authored:test002", "other", 0, *said),
    ]
    assert asked["request"].str.len_chars().to_list() == [64] * 3
    assert free.asked["cost"].to_list() == [None]  # without a price


def test_generation_is_estimated_before_the_first_call_and_held_by_its_cap(capsys):
    with serving(echo) as server:
        tell_cost(questions(generator(server, **PRICE), prompts(TEXTS), decoding(), responder="other"))
        told = capsys.readouterr().out
        assert server.bodies == []
        assert re.fullmatch(
            r"answer other: 3 requests, 0 kept, 3 to ask of other-1, about \d+ tokens to read, at most 24 to write: "
            r"\$0\.\d+ to \$0\.\d+; \$0\.00 of \$1\.00 spent\n",
            told,
        )
        ask(generator(server, **PRICE), prompts(TEXTS[:1]), decoding(), responder="other")
        assert capsys.readouterr().out.startswith("answer other: 1 requests, 0 kept, 1 to ask of other-1")
        tight = {**PRICE, "max_cost": 0.0001}
        with pytest.raises(JudgeError, match=r"max_cost allows \$0\.0001, got \$0\.0000 spent"):
            ask(generator(server, **tight), prompts(TEXTS), decoding(), responder="other")
        assert len(server.bodies) == 1


def test_an_unknown_price_is_refused_unless_any_cost_will_do():
    with serving(echo) as server:
        with pytest.raises(ValidationError, match="given a price, without which max_cost cannot hold"):
            generator(server, price=None, max_cost=1.0)
        assert (
            len(ask(generator(server, price=None, max_cost=None), prompts(TEXTS), decoding(), responder="x").asked) == 3
        )


def test_other_weights_under_the_same_path_are_asked_anew(tmp_path):
    with serving(echo) as server:
        served = generator(server, model="at {folder}")
        for seed in (0, 1, 0):
            folder = make_base(tmp_path / "model", seed=seed)
            answer(checkpoint_questions(served, folder, prompts(["Hi"]), decoding(), responder="x"))
        assert [body["model"] for body in server.bodies] == [f"at {tmp_path}/model"] * 2


def test_the_batch_api_gets_what_single_requests_get():
    with serving(echo) as server:
        ask(generator(server, send=["repetition_penalty"]), prompts(["Hi"]), decoding(), responder="x")
        (sent,) = server.bodies
        request = Request(
            sent["messages"], {"extra_body": {"repetition_penalty": 1.2}, "max_completion_tokens": 8}, bool
        )
        assert request.body(generator(server)) == sent
