import pytest

from stages.core.sampling import Decoding
from stages.errors import InputError, JudgeError
from stages.runtime.asking import Generator, ask_checkpoint, ask_prompts
from stages.runtime.endpoint import Request
from stages.runtime.files import empty_table
from stages.schema import PROMPT
from tests.runtime.chat_server import completion, endpoint, fault, serving
from tests.tiny import DECODING, make_base, prompts

TEXTS = ["Hi", "Who?", "Why so?"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def generator(server, **changes):
    return Generator(**endpoint(server, **{"model": "other-1", **changes}))


def decoding(**changes):
    return Decoding(**{**DECODING, **changes})


def echo(body, _n_before):
    return completion(f" {body['messages'][-1]['content'].upper()} ")


def test_each_prompt_is_asked_and_its_answer_kept():
    with serving(echo) as server:
        first = ask_prompts(generator(server), prompts(TEXTS), decoding(), responder="other")
        again = ask_prompts(generator(server), prompts(TEXTS), decoding(), responder="other")
        assert len(server.bodies) == 3
    assert first.equals(again)
    assert first.rows() == [(f"authored:test{i:03d}", "other", 0, t.upper(), "eot", 3) for i, t in enumerate(TEXTS)]


def test_what_is_sent_is_what_the_endpoint_is_said_to_take():
    everything = ["temperature", "top_p", "repetition_penalty", "seed"]
    with serving(echo) as server:
        for i, send in enumerate(([], ["top_p"], everything)):
            ask_prompts(generator(server, send=send, model=f"m{i}"), prompts(["Hi"]), decoding(), responder="x")
        plain, one, full = server.bodies
    message = [{"role": "user", "content": "Hi"}]
    assert plain == {"model": "m0", "messages": message, "max_completion_tokens": 8}
    assert one == {"model": "m1", "messages": message, "max_completion_tokens": 8, "top_p": 0.9}
    assert 0 <= full.pop("seed") < 2**31
    assert full == {**one, "model": "m2", "temperature": 0.7, "repetition_penalty": 1.2}


def test_a_system_message_comes_first():
    with serving(echo) as server:
        ask_prompts(generator(server), prompts(["Hi"]), decoding(), responder="x", system="Be brief.")
        (body,) = server.bodies
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_samples_and_prompts_have_seeds_of_their_own():
    with serving(echo) as server:
        asked = prompts(TEXTS)
        table = ask_prompts(generator(server, send=["seed"]), asked, decoding(n_samples=2), responder="x")
        seeds = {(body["messages"][-1]["content"], body["seed"]) for body in server.bodies}
        assert len(seeds) == 6
        server.bodies.clear()
        ask_prompts(generator(server, send=["seed"], model="b"), asked.reverse(), decoding(), responder="x")
        assert {(body["messages"][-1]["content"], body["seed"]) for body in server.bodies} < seeds
    assert table["sample"].to_list() == [0, 1] * 3


def test_another_seed_asks_anew_even_where_it_is_not_sent():
    with serving(echo) as server:
        for seed in (0, 1, 0):
            ask_prompts(generator(server), prompts(["Hi"]), decoding(seed=seed), responder="x")
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
        table = ask_prompts(generator(server), prompts(["Hi"]), decoding(), responder="x")
    assert table.select("response", "finish_reason", "n_tokens").rows() == [row]


def test_a_prompt_without_an_answer_stops_and_the_others_are_kept():
    faulty = {"Who?"}

    def behave(body, n_before):
        return fault(500) if body["messages"][-1]["content"] in faulty else echo(body, n_before)

    with serving(behave) as server:
        with pytest.raises(JudgeError, match="must answer every prompt, got none to 1 of 3"):
            ask_prompts(generator(server), prompts(TEXTS), decoding(), responder="x")
        faulty.clear()
        server.bodies.clear()
        assert len(ask_prompts(generator(server), prompts(TEXTS), decoding(), responder="x")) == 3
        assert [body["messages"][-1]["content"] for body in server.bodies] == ["Who?"]


def test_no_prompts_are_one_sentence():
    with serving(echo) as server, pytest.raises(InputError, match="no prompts to answer"):
        ask_prompts(generator(server), empty_table(PROMPT), decoding(), responder="x")


def test_other_weights_under_the_same_path_are_asked_anew(tmp_path):
    with serving(echo) as server:
        served = generator(server, model="at {folder}")
        for seed in (0, 1, 0):
            folder = make_base(tmp_path / "model", seed=seed)
            ask_checkpoint(served, folder, prompts(["Hi"]), decoding(), responder="x")
        assert [body["model"] for body in server.bodies] == [f"at {tmp_path}/model"] * 2


def test_the_batch_api_gets_what_single_requests_get():
    with serving(echo) as server:
        ask_prompts(generator(server, send=["repetition_penalty"]), prompts(["Hi"]), decoding(), responder="x")
        (sent,) = server.bodies
        request = Request(
            sent["messages"], {"extra_body": {"repetition_penalty": 1.2}, "max_completion_tokens": 8}, bool
        )
        assert request.body(generator(server)) == sent
