import pytest
from transformers import AutoTokenizer

from stages.common.errors import InputError, ParamsError
from stages.core.chat import ChatFormat, render_example, render_prompt
from stages.runtime.tokenizer import load_tokenizer
from tests.tiny import make_base

TURNS = [
    {"role": "user", "content": "Hi, you."},
    {"role": "assistant", "content": "Yo <3"},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "Ünd!"},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


def test_the_base_has_a_prefix_and_no_eot(base):
    tokenizer = load_tokenizer(base)
    assert tokenizer.prefix_ids == [1]
    assert tokenizer.eot_id is None
    assert tokenizer.stop_ids == {2}


def test_eot_is_a_new_token_distinct_from_eos_and_padding(base):
    tokenizer = load_tokenizer(base).with_eot("<|eot|>")
    assert tokenizer.eot_id not in {0, 1, 2, *tokenizer.encode("any text <|eot|>")}
    assert tokenizer.stop_ids == {2, tokenizer.eot_id}
    assert [tokenizer.finish_reason(i) for i in (tokenizer.eot_id, 2, None)] == ["eot", "eos", "length"]


def test_an_eot_that_is_the_eos_is_refused(base):
    with pytest.raises(ParamsError, match="eos_token"):
        load_tokenizer(base).with_eot("</s>")


def test_special_tokens_inside_a_text_are_read_as_text(base):
    tokenizer = load_tokenizer(base).with_eot("<|eot|>")
    ids = tokenizer.encode("a</s><|eot|>b")
    assert not {0, 1, 2, tokenizer.eot_id} & set(ids)
    assert tokenizer.decode(ids) == "a</s><|eot|>b"


def test_a_saved_tokenizer_loads_in_transformers_with_the_same_ids_and_template(base, tmp_path):
    tokenizer = load_tokenizer(base).with_eot("<|eot|>")
    tokenizer.save(tmp_path)
    chat = ChatFormat(eot="<|eot|>", max_tokens=500, loss_on="responses")
    rendered = render_example(
        TURNS, encode=tokenizer.encode, prefix_ids=tokenizer.prefix_ids, eot_id=tokenizer.eot_id, chat=chat
    )
    prompt = render_prompt(TURNS[:3], encode=tokenizer.encode, prefix_ids=tokenizer.prefix_ids, eot_id=tokenizer.eot_id)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.apply_chat_template(TURNS, tokenize=True)["input_ids"] == rendered.input_ids
    assert theirs.apply_chat_template(TURNS[:3], add_generation_prompt=True)["input_ids"] == prompt


def test_a_saved_tokenizer_comes_back_as_it_was(base, tmp_path):
    tokenizer = load_tokenizer(base).with_eot("<|eot|>")
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert (again.eot_id, again.prefix_ids, again.stop_ids) == (
        tokenizer.eot_id,
        tokenizer.prefix_ids,
        tokenizer.stop_ids,
    )


def test_a_folder_without_a_fast_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_one_sentence(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(InputError, match="not a tokenizer"):
        load_tokenizer(tmp_path)
