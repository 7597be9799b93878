"""A folder in which `sft` and its peer train the same model on the same examples: random weights, LIMA's lengths."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from stages.common.files import write_table
from stages.core.training_cost import Shape
from stages.runtime.model import save_model
from stages.schema import RENDERED

SHAPES = {
    "mini": Shape(3, 64, 172, 4, 2, 16, 512, tied=True),
    "tiny": Shape(6, 256, 688, 4, 4, 64, 4096, tied=False),
    "1b": Shape(16, 2048, 5632, 32, 8, 64, 32000, tied=False),
    "7b": Shape(32, 4096, 11008, 32, 32, 128, 32000, tied=False),
}
# LIMA's Table 1: examples, mean tokens of the prompt and of the response. The paper gives no more than means.
TABLE_1 = [(200, 117, 523), (200, 119, 530), (200, 12, 1811), (150, 34, 274), (50, 236, 92), (200, 40, 334)]
SPREAD = 0.4  # standard deviation of the logarithm of a length, within a row of the table: ours
MAX_TOKENS = 2048
SPECIALS = ["<pad>", "<s>", "</s>"]


class Recipe(NamedTuple):
    """What both sides are told."""

    epochs: int
    batch: int  # examples a step
    lr: float
    lr_end: float
    is_bf16: bool
    checkpoints: bool
    micro_batch_tokens: int  # ours
    residual_dropout: float = 0.0  # the peer has none
    optimizer: str = "adamw"


def rows(n: int, vocab_size: int) -> pl.DataFrame:
    """RENDERED rows of random tokens, `n` of a thousand that are as long as LIMA's; loss on the response."""
    rng = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    for count, prompt, response in TABLE_1:
        for _ in range(count):
            # The mean of a log-normal is exp(mu + sigma^2 / 2).
            long = rng.lognormal(np.log([prompt, response]) - SPREAD**2 / 2, SPREAD).round().astype(int).clip(2)
            asked = min(int(long[0]), MAX_TOKENS // 2)
            answered = min(int(long[1]), MAX_TOKENS - asked)
            made.append({
                "id": f"random:{len(made):04d}", "source": "random", "group": "random", "n_trimmed_tokens": 0,
                "input_ids": rng.integers(len(SPECIALS), vocab_size, asked + answered).tolist(),
                "loss_mask": [0] * asked + [1] * answered, "n_tokens": asked + answered,
            })  # fmt: skip
    chosen = sorted(rng.permutation(len(made))[:n].tolist())
    return pl.DataFrame([made[i] for i in chosen], schema=dict(RENDERED))


def make(folder: Path, shape: Shape, n_examples: int, recipe: Recipe) -> None:
    """Write the inputs of the stage: a base with random weights, rendered rows, params.yaml."""
    if not (folder / "models/base/config.json").is_file():
        make_base(folder / "models/base", shape, is_bf16=recipe.is_bf16)
    write_table(folder / "data/render/curated.parquet", rows(n_examples, shape.vocab_size), RENDERED)
    sft = {
        "seed": 0, "method": "full", "lora": {"rank": 8, "alpha": 8}, "optimizer": recipe.optimizer, "lr": recipe.lr,
        "lr_end": recipe.lr_end, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1,
        "max_grad_norm": 1.0 if recipe.optimizer == "adamw" else None, "global_batch_size": recipe.batch,
        "micro_batch_tokens": recipe.micro_batch_tokens, "gradient_checkpointing": recipe.checkpoints,
        "residual_dropout": recipe.residual_dropout, "precision": "bf16" if recipe.is_bf16 else "fp32",
    }  # fmt: skip
    arm = {"sample": {}, "sft": {"epochs": recipe.epochs, "candidate_epochs": [recipe.epochs]}}
    render = {"eot": "<|eot|>", "max_tokens": MAX_TOKENS, "loss_on": "responses"}
    (folder / "params.yaml").write_text(json.dumps({"render": render, "sft": sft, "arms": {"curated": arm}}))


def make_base(folder: Path, shape: Shape, *, is_bf16: bool) -> None:
    """Write a LLaMA with random weights and a tokenizer of single bytes; ids above those are free."""
    config = LlamaConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.n_layers, num_attention_heads=shape.n_heads, num_key_value_heads=shape.n_kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=MAX_TOKENS, tie_word_embeddings=shape.tied,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, dtype=torch.bfloat16 if is_bf16 else torch.float32,
    )  # fmt: skip
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(config.dtype)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(default)
    save_model(model, folder)
    vocab = {token: i for i, token in enumerate([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    names["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
