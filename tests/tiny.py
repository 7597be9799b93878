"""A random model of a few thousand weights in the transformers layout, and rows to train it on."""

import json
from pathlib import Path

import polars as pl
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM

from stages.common.files import write_table
from stages.runtime.model import save_model
from stages.schema import EXAMPLE, PROMPT

SPECIALS = ["<pad>", "<s>", "</s>"]


def make_base(folder: Path, *, n_layers: int = 2, seed: int = 0, context_tokens: int = 128) -> Path:
    """Write a model folder whose tokenizer has one token a byte."""
    vocab = {token: i for i, token in enumerate([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=n_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context_tokens,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    save_model(LlamaForCausalLM(config), folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def examples(pairs: list[tuple[str, str]], *, group: str = "authored") -> pl.DataFrame:
    """EXAMPLE rows of one turn each."""
    rows = [
        {
            "id": f"authored:{i:03d}",
            "source": "authored",
            "domain": "play",
            "group": group,
            "score": 1,
            "messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}],
        }
        for i, (ask, reply) in enumerate(pairs)
    ]
    return pl.DataFrame(rows, schema=dict(EXAMPLE))


def prompts(texts: list[str], *, split: str = "test", references: list[list[str] | None] | None = None) -> pl.DataFrame:
    """PROMPT rows of one turn each."""
    rows = [
        {
            "id": f"authored:{split}{i:03d}",
            "split": split,
            "source": "authored",
            "group": "authored",
            "domain": "play",
            "messages": [{"role": "user", "content": text}],
            "references": references[i] if references else None,
        }
        for i, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=dict(PROMPT))


def write_examples(path: Path, pairs: list[tuple[str, str]]) -> None:
    """Write EXAMPLE rows."""
    write_table(path, examples(pairs), EXAMPLE)


CHAT = {"eot": "<|eot|>", "max_tokens": 64, "loss_on": "responses"}
DECODING = {
    "seed": 0,
    "temperature": 0.7,
    "top_p": 0.9,
    "repetition_penalty": 1.2,
    "max_new_tokens": 8,
    "n_samples": 1,
    "precision": "fp32",
    "batch_size": 3,
}
ANSWERING = {**DECODING, "endpoint": None}
SFT = {
    "seed": 0,
    "method": "full",
    "lora": {"rank": 4, "alpha": 8},
    "lr": 1e-2,
    "lr_end": 1e-3,
    "beta1": 0.9,
    "beta2": 0.95,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
    "global_batch_size": 4,
    "micro_batch_tokens": 64,
    "gradient_checkpointing": False,
    "optimizer": "adamw",
    "residual_dropout": 0.1,
    "precision": "fp32",
}


def write_params(folder: Path, **sections: object) -> None:
    """Write params.yaml (JSON is YAML)."""
    (folder / "params.yaml").write_text(json.dumps(sections))
