"""base: bring the base model, or pretrain the miniature from scratch.

Reads `base.model`: "miniature", a hub id at a pinned revision, or a folder in the transformers layout.
Writes models/base/: config, tokenizer and safetensors weights, nothing else.

The miniature is *ours*: a tiny LLaMA trained on the prose of an invented world (stages/core/world.py), so that
knowledge comes from pretraining alone. Real bases are copied as they are; code in a model folder is neither run nor
copied. A model of the hub is downloaded once, resumed where it broke off, and held against the hub's checksums
(stages/runtime/hub.py).
"""

import json
import math
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from stages.common.errors import InputError, ParamsError
from stages.common.files import write_text
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.formats import Miniature
from stages.core.world import World, make_world, prose
from stages.runtime.hub import SMALL_FILES, find_model
from stages.runtime.model import (
    INDEX_FILE,
    WEIGHTS_FILE,
    check_architecture,
    check_model_folder,
    read_config,
    save_model,
    weight_files,
)
from stages.runtime.progress import bar, progress
from stages.runtime.tokenizer import CONFIG_FILE, TOKENIZER_FILE, load_tokenizer
from stages.runtime.transfers.kept_files import share

OUT = Path("models/base")
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
N_TOKENIZER_DOCUMENTS = 2_000


class Pretrain(Section):
    """How the miniature is pretrained."""

    seed: int = Field(ge=0)
    vocab_size: int = Field(ge=300, le=65_536)  # tokens
    hidden_size: int = Field(ge=8)
    n_layers: int = Field(ge=1)
    n_heads: int = Field(ge=1)  # divides hidden_size
    context_tokens: int = Field(ge=16)  # tokens
    batch_size: int = Field(ge=1)  # sequences of context_tokens
    n_steps: int = Field(ge=1)
    lr: float = Field(gt=0)  # peak: 50 steps up, flat to 60 %, then linear to 2 % of it


class Params(Section):
    """Section `base`."""

    model: str = Field(min_length=1)
    revision: str | None
    pretrain: Pretrain


def train_tokenizer(documents: list[str], *, vocab_size: int) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer
    """Train a byte-level BPE on documents; `<s>` stands before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    bos = SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def blocks(documents: Iterator[str], tokenizer: Any, *, width: int) -> Iterator[list[int]]:  # noqa: ANN401
    """Pack documents, each `<s> text </s>`, end to end into blocks of `width` tokens."""
    eos_id = tokenizer.token_to_id(SPECIAL_TOKENS["eos_token"])
    buffer: list[int] = []
    while batch := list(islice(documents, 256)):
        for encoding in tokenizer.encode_batch_fast(batch):
            buffer += [*encoding.ids, eos_id]
        while len(buffer) >= width:
            yield buffer[:width]
            buffer = buffer[width:]


def learning_rate(step: int, *, peak: float, n_steps: int) -> float:
    """Of step 0..n_steps-1: 50 steps of warm-up, flat to 60 % of the steps, then linear to 2 % of the peak."""
    if step < 50:
        return peak * (step + 1) / 50
    done = step / n_steps
    return peak if done < 0.6 else peak * max(0.02, (1 - done) / 0.4)


def pretrain(world: World, params: Pretrain, out: Path) -> None:
    """Train the miniature and save it as a model folder."""
    if params.hidden_size % (2 * params.n_heads):
        raise ParamsError(
            f"params.yaml: base.pretrain.n_heads: must divide hidden_size {params.hidden_size} into even parts, "
            f"got {params.n_heads}"
        )
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(
        list(islice(prose(world, np.random.default_rng([params.seed, 0])), N_TOKENIZER_DOCUMENTS)),
        vocab_size=params.vocab_size,
    )
    torch.manual_seed(params.seed)
    ids = {name: tokenizer.token_to_id(text) for name, text in SPECIAL_TOKENS.items()}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=params.hidden_size,
            intermediate_size=-(-8 * params.hidden_size // 3 // 32) * 32,
            num_hidden_layers=params.n_layers,
            num_attention_heads=params.n_heads,
            num_key_value_heads=params.n_heads,
            max_position_embeddings=2 * params.context_tokens,
            tie_word_embeddings=True,
            bos_token_id=ids["bos_token"],
            eos_token_id=ids["eos_token"],
            pad_token_id=ids["pad_token"],
        )
    )
    stream = blocks(prose(world, np.random.default_rng([params.seed, 1])), tokenizer, width=params.context_tokens)
    _train(model, stream, params)
    save_model(model, out)
    write_text(out / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    config = {**SPECIAL_TOKENS, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": params.context_tokens}
    write_text(out / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _train(model: Any, stream: Iterator[list[int]], params: Pretrain) -> None:  # noqa: ANN401
    import torch

    from stages.core.replicas import Replicas

    device = "cuda" if torch.cuda.is_available() else "cpu"
    n_threads = min(torch.get_num_threads(), params.batch_size) if device == "cpu" else 1
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    with bar(desc="pretrain", total=params.n_steps, unit="step") as shown, Replicas(model, n_threads) as replicas:
        for step in range(params.n_steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, peak=params.lr, n_steps=params.n_steps)
            # (batch_size, context_tokens)
            loss = replicas.backward(torch.tensor(list(islice(stream, params.batch_size)), device=device))
            if not math.isfinite(loss):
                raise InputError(f"base.pretrain: the loss of step {step + 1} is {loss}; lower base.pretrain.lr")
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step % 50 == 0:
                shown.set_postfix(loss=f"{loss:.3f}")
            shown.update()


def bring_model(name: str, revision: str | None, out: Path) -> None:
    """Fill `out` with what a model needs from its folder; anything else there, code included, stays behind.

    Raises:
        ParamsError: the revision of a hub id is no commit.
        InputError: there is no such model, it is of an unknown architecture, or its tokenizer is not a fast one.
    """
    folder, is_kept = find_model(name, revision, section="base")
    check_model_folder(folder)
    check_architecture(folder)
    load_tokenizer(folder)
    weights = weight_files(folder)
    names = [*SMALL_FILES, *([INDEX_FILE] if weights[0].name != WEIGHTS_FILE else [])]
    paths = [*(path for name in names if (path := folder / name).is_file()), *weights]
    out.mkdir(parents=True)
    for path in progress(paths, desc="copy", unit="file"):
        share(path, out / path.name, may_link=is_kept)
    config = read_config(folder)
    if config.pop("auto_map", None) is not None:  # it points to code that stayed behind
        (out / "config.json").unlink()
        write_text(out / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Fill models/base."""
    params = load_params("base", Params)
    partial = OUT.with_name(".base.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if params.model == "miniature":
            world = load_params("miniature", Miniature)
            pretrain(make_world(seed=world.seed, n_people=world.n_people), params.pretrain, partial)
        else:
            bring_model(params.model, params.revision, partial)
        shutil.rmtree(OUT, ignore_errors=True)
        partial.replace(OUT)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
