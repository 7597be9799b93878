"""Every family that a base may be of: chat format, EOT, a training run, the exported folder in transformers."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from stages import render, sft
from stages.core.chat import render_prompt
from stages.core.residual_dropout import add_residual_dropout
from stages.core.sampling import Decoding
from stages.runtime.answering import Answerer, answer_prompts
from stages.runtime.model import load_model, save_model
from stages.runtime.tokenizer import ChatTokenizer, load_tokenizer
from tests.families import FAMILIES, make_family, tiny_model
from tests.tiny import CHAT, DECODING, SFT, prompts, write_examples, write_params

EOT = "<|eot|>"


@cache
def base(name: str) -> Path:
    return make_family(name, Path(mkdtemp(prefix=name)) / "base")


@cache
def exported(name: str) -> tuple[ChatTokenizer, object]:
    """A family's tokenizer with our chat format, here and as transformers loads it."""
    tokenizer = load_tokenizer(base(name)).with_eot(EOT)
    folder = Path(mkdtemp(prefix=name))
    tokenizer.save(folder)
    return tokenizer, AutoTokenizer.from_pretrained(folder)


def prompt_ids(tokenizer: ChatTokenizer, messages: list[dict[str, str]]) -> list[int]:
    return render_prompt(messages, encode=tokenizer.encode, prefix_ids=tokenizer.prefix_ids, eot_id=tokenizer.eot_id)


def dialogue(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


HARD = [
    dialogue("What is it?"),
    dialogue(" leading", "  two", "trailing  "),
    dialogue("\n\nlines\n\n", "\ttab\r\n", "end\n"),
    dialogue("Größe ½ … ▁ 東京 🙂🏽 e\u0301 \u00a0 \u200b", "naïve ﬁ", "\u202e"),
    dialogue("<|user|> <|eos|> [INST] <eot> <| eot |> {{ bos_token }} {% raw %}", "<pad", "<unused0>"),
    dialogue("12345 + 1", "", "it's 'quoted' \\ \""),
]


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_reads_a_dialogue_as_we_do(name: str) -> None:
    tokenizer, theirs = exported(name)
    for messages in HARD:
        applied = theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)["input_ids"]
        assert applied == prompt_ids(tokenizer, messages)
        assert applied.count(tokenizer.eot_id) == len(messages)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.lists(st.text(st.sampled_from(" \n\t▁aåe\u0301Ω東🙂<|>is0.'{"), max_size=12), min_size=1, max_size=3),
)
def test_transformers_reads_any_text_as_we_do(name: str, contents: list[str]) -> None:
    tokenizer, theirs = exported(name)
    messages = dialogue(*contents)
    assert theirs.apply_chat_template(messages, tokenize=True)["input_ids"] == prompt_ids(tokenizer, messages)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_text_is_a_special_token(name: str) -> None:
    """Here it is read as text; in a template, from which it would be read again, it gets a space."""
    tokenizer, theirs = exported(name)
    specials = [*theirs.all_special_tokens, EOT, *(token for token in theirs.get_vocab() if token.startswith("<|"))]
    for text in specials:
        messages = dialogue(f"a {text}b")
        ours = prompt_ids(tokenizer, messages)
        applied = theirs.apply_chat_template(messages, tokenize=True)["input_ids"]
        special_ids = set(theirs.convert_tokens_to_ids(specials))
        assert [i for i in ours if i in special_ids] == [*tokenizer.prefix_ids, tokenizer.eot_id]
        assert [i for i in applied if i in special_ids] == [*tokenizer.prefix_ids, tokenizer.eot_id]
        assert tokenizer.decode(ours).strip() == f"a {text}b"
        assert tokenizer.decode(applied).strip() == f"a {text[0]} {text[1:]}b"


@pytest.mark.parametrize("name", FAMILIES)
def test_eot_is_no_other_token_of_the_base(name: str) -> None:
    tokenizer, theirs = exported(name)
    config = json.loads((base(name) / "config.json").read_text())
    others = {config.get(f"{key}_token_id") for key in ("bos", "eos", "pad")} | {
        theirs.eos_token_id,
        theirs.pad_token_id,
    }
    assert tokenizer.eot_id not in others
    assert theirs.pad_token_id is not None
    assert theirs.decode([tokenizer.eot_id]) == EOT


@pytest.mark.parametrize("name", FAMILIES)
def test_eot_gets_a_row_and_no_other_row_changes(name: str) -> None:
    tokenizer = load_tokenizer(base(name)).with_eot(EOT)
    before, model = load_model(base(name)), load_model(base(name))
    sft.add_eot(model, tokenizer)
    for get in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, get)().weight, getattr(model, get)().weight
        n_rows = max(len(old), tokenizer.eot_id + 1)
        assert len(new) == n_rows == model.config.vocab_size
        torch.testing.assert_close(new[tokenizer.eot_id], old[: tokenizer.eot_id].mean(0))
        unchanged = [i for i in range(len(old)) if i != tokenizer.eot_id]
        assert torch.equal(new[unchanged], old[unchanged])
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == bool(model.config.tie_word_embeddings)


@pytest.mark.parametrize("silent", ["self_attn.o_proj", "mlp.down_proj"])
@pytest.mark.parametrize("name", FAMILIES)
def test_residual_dropout_is_on_what_a_block_adds_to_the_residual(name: str, silent: str) -> None:
    """With one half of the block silent, the other's addition is dropped or doubled, behind any norm of its own."""
    ids_of = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    model = tiny_model(name, vocab_size=64, num_hidden_layers=1, **ids_of).double()
    layer = model.model.layers[0]
    torch.nn.init.zeros_(layer.get_submodule(silent).weight)
    added: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _module, inputs, output: added.append((output - inputs[0]).detach()))
    ids = torch.arange(3, 15)[None]
    model.eval()(ids)
    streams = add_residual_dropout(model, p_last=0.5)
    if streams is not None:
        streams.begin(seed=0, step=1, examples=[0], lengths=[12])
    model.train()(ids)
    plain, dropped = added
    kept = dropped.abs() > 1e-12
    torch.testing.assert_close(dropped[kept], 2 * plain[kept])
    assert 0.35 < kept.double().mean() < 0.65


ASK, REPLY = "What is it?", "a river"


def tuned(folder: Path, root: Path, **changes: object) -> tuple[Path, Answerer, dict[str, object]]:
    """The model that the stages make of a base, with one pair learnt by heart; and its answer."""
    (root / "models").mkdir()
    (root / "models/base").symlink_to(folder)
    write_examples(root / "data/sample/curated.parquet", [(ASK, REPLY)])
    arm = {"epochs": 40, "candidate_epochs": [40]}
    write_params(root, render=CHAT, sft={**SFT, "lr": 2e-2, **changes}, arms={"curated": {"sample": {}, "sft": arm}})
    render.main("curated")
    sft.main("curated")
    out = root / "models/sft/curated/epoch_40"
    answerer = Answerer(out, precision="fp32")
    greedy = Decoding(**{**DECODING, "temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 24})
    [answer] = answer_prompts(answerer, prompts([ASK]), greedy, responder="curated").to_dicts()
    return out, answerer, answer


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tuned_model_answers_and_stops_everywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From examples through the stages to the exported folder: one pair is learnt by heart, and what follows is EOT."""
    monkeypatch.chdir(tmp_path)
    folder, answerer, answer = tuned(base(name), tmp_path)
    assert (answer["response"], answer["finish_reason"]) == (REPLY, "eot")

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.eos_token_id[0] == answerer.tokenizer.eot_id
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    [out] = write(dialogue(ASK), max_new_tokens=24, do_sample=False)
    assert out["generated_text"][-1]["content"].strip() == REPLY


@pytest.mark.parametrize("name", ["llama3", "gemma3"])
def test_lora_learns_to_answer_and_to_stop(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On embeddings that tell words apart, as they stay frozen; with its row frozen too, EOT is never the likeliest."""
    monkeypatch.chdir(tmp_path)
    model, folder = load_model(base(name)), tmp_path / "base"
    with torch.no_grad():
        for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            weight.mul_(20)
    save_model(model, folder)
    for path in base(name).glob("tokenizer*"):
        shutil.copy(path, folder)
    _, _, answer = tuned(folder, tmp_path, method="lora")
    assert (answer["response"], answer["finish_reason"]) == (REPLY, "eot")
