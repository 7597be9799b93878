import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.chat import ChatFormat, chat_template, render_example, render_prompt

BOS, EOT = 1, 2
TURNS = [
    {"role": "user", "content": "ab"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
    {"role": "assistant", "content": "ef"},
]
a, b, c, d, e, f = map(ord, "abcdef")


def encode(text: str) -> list[int]:
    return list(map(ord, text))


def render(messages, *, max_tokens=100, loss_on="responses"):
    chat = ChatFormat(eot="<eot>", max_tokens=max_tokens, loss_on=loss_on)
    return render_example(messages, encode=encode, prefix_ids=[BOS], eot_id=EOT, chat=chat)


def test_every_utterance_ends_with_eot_and_only_responses_carry_loss():
    rendered = render(TURNS)
    assert rendered.input_ids == [BOS, a, b, EOT, c, EOT, d, EOT, e, f, EOT]
    assert rendered.loss_mask == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1]
    assert rendered.n_trimmed_tokens == 0


def test_loss_on_all_takes_every_token_but_the_prefix():
    assert render(TURNS, loss_on="all").loss_mask == [0] + [1] * 10


def test_a_trimmed_example_has_no_false_eot_and_says_how_much_was_cut():
    rendered = render(
        [*TURNS[:2], {"role": "user", "content": "d"}, {"role": "assistant", "content": "efefef"}], max_tokens=10
    )
    assert rendered.input_ids == [BOS, a, b, EOT, c, EOT, d, EOT, e, f]
    assert rendered.input_ids[-1] != EOT
    assert rendered.n_trimmed_tokens == 5


def test_an_example_of_exactly_max_tokens_keeps_its_eot():
    rendered = render(TURNS[:2], max_tokens=6 + 2)
    assert rendered.input_ids[-1] == EOT
    assert rendered.n_trimmed_tokens == 0


def test_the_prompt_is_what_training_saw_before_the_response():
    full = render(TURNS).input_ids
    prompt = render_prompt(TURNS[:3], encode=encode, prefix_ids=[BOS], eot_id=EOT)
    assert full[: len(prompt)] == prompt
    assert full[len(prompt) :] == [e, f, EOT]


def test_a_base_without_eot_gets_plain_text():
    assert render_prompt(TURNS[:1], encode=encode, prefix_ids=[BOS], eot_id=None) == [BOS, a, b, 10, 10]


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.lists(texts, min_size=1, max_size=5), st.integers(8, 60), st.sampled_from(["responses", "all"]))
def test_mask_and_ids_have_one_length_and_nothing_is_lost_uncounted(contents, max_tokens, loss_on):
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    rendered = render(messages, max_tokens=max_tokens, loss_on=loss_on)
    assert len(rendered.input_ids) == len(rendered.loss_mask) <= max_tokens
    whole = 1 + sum(len(text) + 1 for text in contents)
    assert len(rendered.input_ids) + rendered.n_trimmed_tokens == whole


def refuse(message: str) -> None:
    raise ValueError(message)


def written(template: str, messages) -> str:
    return jinja2.Template(template).render(messages=messages, raise_exception=refuse)


def test_the_template_writes_the_same_text_as_the_renderer():
    assert written(chat_template("<eot>", prefix="<s>"), TURNS) == "<s>ab<eot>c<eot>d<eot>ef<eot>"
    assert written(chat_template("<eot>"), TURNS[:1]) == "ab<eot>"


def test_what_an_utterance_says_is_never_a_special_token_in_the_template():
    said = [{"role": "user", "content": "a<eot><s>b <eo<eot>t>"}]
    text = written(chat_template("<eot>", prefix="<s>", specials=["<eot>", "<s>", "\n"]), said)
    assert text == "<s>a< eot>< s>b <eo< eot>t><eot>"


@pytest.mark.parametrize("roles", [["assistant"], ["system", "user"], ["user", "user"]])
def test_the_template_refuses_turns_that_the_format_cannot_say(roles):
    with pytest.raises(ValueError, match="user and assistant in turn"):
        written(chat_template("<eot>"), [{"role": role, "content": "a"} for role in roles])


def test_a_quote_in_the_eot_cannot_break_the_template():
    eot = "<\"'eot}}>"
    assert written(chat_template(eot, prefix=eot, specials=[eot]), TURNS[:1]) == eot + "ab" + eot
