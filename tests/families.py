"""Tiny random models of each family that a base may be of, with tokenizers built as the family's own are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from stages.runtime.model import save_model

WORDS = (
    "the town of birth is a small place, and its name was heard by the river. What is it? Say one: 12 + 30 = 42.\n\n"
)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


class Family(NamedTuple):
    """How a family's models and tokenizers are made."""

    config: dict[str, Any]  # of transformers, model_type among it
    tokenizer: Callable[[], Tokenizer]
    names: dict[str, Any]  # of tokenizer_config.json
    n_reserved: int = 0  # rows of the embedding beyond the tokenizer


def byte_level(
    specials: list[str], *, bos: str | None = None, split: str | None = None, nfc: bool = False
) -> Tokenizer:
    """Byte-level BPE: LLaMA 3, Qwen, SmolLM, OLMo."""
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    steps += [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [WORDS], trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if bos:
        ids = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(single=f"{bos} $A", special_tokens=ids),
            ]
        )
    return tokenizer


def pieces(
    specials: list[str],
    *,
    bos: str | None,
    spaces: str,
    rstrip: tuple[str, ...] = (),
    plain: tuple[str, ...] = (),
    normalized: bool = False,
) -> Tokenizer:
    """BPE over characters with bytes for the rest, a space written as a low line: LLaMA 1 and 2, Mistral, Gemma, Phi-3.

    Args:
        specials: the special tokens.
        bos: which of them begins a text.
        spaces: "prepended" to each part by the normalizer, put before the "first" part, or "none" put.
        rstrip: special tokens that take the white space behind them away.
        plain: added tokens that are not special.
        normalized: whether special tokens are looked for in the normalised text.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    replace = normalizers.Replace(" ", "▁")
    if spaces == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    elif spaces == "prepended":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    else:
        tokenizer.normalizer = replace
    strip = [] if spaces == "none" else [decoders.Strip(" ", 1, 0)]
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(steps)
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[*specials, *bytes_], show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    tree = json.loads(tokenizer.to_str())
    tree["added_tokens"] = [token for token in tree["added_tokens"] if token["content"] not in bytes_]
    for token in tree["added_tokens"]:
        token["rstrip"] = token["content"] in rstrip
        token["normalized"] = normalized
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    if bos:
        ids = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=ids)
    return tokenizer


LLAMA = ["<unk>", "<s>", "</s>"]
LLAMA_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(5))]
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_NAMES = {"bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
GEMMA_NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
PHI3 = [*LLAMA, "<|endoftext|>", "<|assistant|>", "<|end|>"]
SPLIT = r"(?i:'s|'t|'re|'ll)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def qwen() -> Tokenizer:
    return byte_level(QWEN, split=SPLIT, nfc=True)


def gemma() -> Tokenizer:
    return pieces(GEMMA, bos="<bos>", spaces="none", plain=("<unused0>", "\n\n"))


def llama() -> Tokenizer:
    return pieces(LLAMA, bos="<s>", spaces="prepended")


FAMILIES = {
    "llama": Family({"model_type": "llama"}, llama, LLAMA_NAMES),
    "llama1": Family(
        {"model_type": "llama"}, lambda: pieces(LLAMA, bos="<s>", spaces="prepended", normalized=True), LLAMA_NAMES
    ),
    "llama3": Family(
        {"model_type": "llama", "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
        lambda: byte_level(LLAMA3, bos="<|begin_of_text|>", split=SPLIT),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    ),
    "mistral": Family(
        {"model_type": "mistral", "sliding_window": 16}, lambda: pieces(LLAMA, bos="<s>", spaces="first"), LLAMA_NAMES
    ),
    "qwen2": Family({"model_type": "qwen2", "tie_word_embeddings": True}, qwen, QWEN_NAMES, n_reserved=5),
    "qwen3": Family(
        {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True}, qwen, QWEN_NAMES, n_reserved=5
    ),
    "smollm": Family(
        {"model_type": "llama", "tie_word_embeddings": True},
        lambda: byte_level(QWEN),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
    ),
    "smollm3": Family({"model_type": "smollm3", "tie_word_embeddings": True}, lambda: byte_level(QWEN), QWEN_NAMES),
    "olmo2": Family(
        {"model_type": "olmo2"},
        lambda: byte_level(["<|endoftext|>", "<|pad|>"], split=SPLIT),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"},
        n_reserved=8,
    ),
    "gemma": Family({"model_type": "gemma", "head_dim": 8, "tie_word_embeddings": True}, gemma, GEMMA_NAMES),
    "gemma2": Family(
        {"model_type": "gemma2", "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
        gemma, GEMMA_NAMES, n_reserved=3,
    ),
    "gemma3": Family(
        {"model_type": "gemma3_text", "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
        gemma, GEMMA_NAMES, n_reserved=3,
    ),
    "phi3": Family(
        {"model_type": "phi3", "tie_word_embeddings": False},
        lambda: pieces(PHI3, bos=None, spaces="prepended", rstrip=("</s>", "<|assistant|>", "<|end|>")),
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"},
    ),
}  # fmt: skip


def tiny_model(name: str, *, vocab_size: int, **changed: object) -> Any:
    """A random model of a family."""
    kind = FAMILIES[name].config
    settings = {**SIZES, **kind, "vocab_size": vocab_size, **changed}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[settings.pop("model_type")](**settings))


def make_family(name: str, folder: Path) -> Path:
    """Write a model folder of a family."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    ids = {
        f"{key}_id": tokenizer.token_to_id(family.names[key]) if family.names.get(key) else None
        for key in ("bos_token", "eos_token", "pad_token")
    }
    model = tiny_model(name, vocab_size=tokenizer.get_vocab_size() + family.n_reserved, **ids)
    save_model(model, folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(family.names))
    return folder
