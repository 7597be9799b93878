"""TRL's SFTTrainer on what `sft` trains on: `python -m bench.sft_peer <folder> <way> <batch>`, TRL on PYTHONPATH.

A way is words joined by +: `padded` or `padding-free`, then an attention that transformers knows (`sdpa`,
`flex_attention`, `flash_attention_2`), and `liger`, `compile`. The same examples in the same order (in later epochs
that of the first), the same optimizer and parameter groups, learning rates, clipping, precision; the loss of a step is
the sum over its supervised tokens over their number, as the trainer itself does it. One candidate is saved at the end,
in 16 bits where the run computes in 16 bits, as `sft` does. Writes peer.json and the folder `peer`.
"""

import json
import logging
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from stages.common.files import read_json, read_table
from stages.core.schedule import schedule
from stages.runtime.machine import peak_bytes
from stages.runtime.model import save_model
from stages.runtime.tokenizer import load_tokenizer
from stages.schema import RENDERED
from stages.sft import add_eot, parameter_groups


class Watch(TrainerCallback):
    """The moment at which each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_args: object, **_kwargs: object) -> None:
        """Look at the clock."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.monotonic())


def main(folder: Path, way: str, batch: int) -> None:
    """Train, and write what it took."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    begun = time.monotonic()
    padding, attention, *more = way.split("+")
    params = read_json(folder / "params.yaml")
    sft, arm = params["sft"], params["arms"]["curated"]["sft"]
    table = read_table(folder / "data/render/curated.parquet", RENDERED)
    tokenizer = load_tokenizer(folder / "models/base").with_eot(params["render"]["eot"])
    model = AutoModelForCausalLM.from_pretrained(
        folder / "models/base", dtype=torch.float32, attn_implementation=attention, local_files_only=True
    )
    add_eot(model, tokenizer)
    steps = list(schedule(
        len(table), epochs=arm["epochs"], global_batch_size=sft["global_batch_size"], lr=sft["lr"],
        lr_end=sft["lr_end"], seed=sft["seed"],
    ))  # fmt: skip
    order = [i for step in steps if step.epoch == 1 for i in step.examples]
    ids, masks = table["input_ids"].to_list(), table["loss_mask"].to_list()
    labels = [[t if m else -100 for t, m in zip(*pair, strict=True)] for pair in zip(ids, masks, strict=True)]
    rows = {"input_ids": [ids[i] for i in order], "labels": [labels[i] for i in order]}
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    groups = parameter_groups(model, weight_decay=sft["weight_decay"])
    optimizer = torch.optim.AdamW(groups, lr=sft["lr"], betas=(sft["beta1"], sft["beta2"]), fused=True)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: steps[min(n, len(steps) - 1)].lr / sft["lr"])
    arguments = SFTConfig(
        str(folder / "peer"), per_device_train_batch_size=batch,
        gradient_accumulation_steps=sft["global_batch_size"] // batch, num_train_epochs=arm["epochs"],
        max_grad_norm=sft["max_grad_norm"], bf16=sft["precision"] == "bf16", max_length=None,
        padding_free=padding == "padding-free", gradient_checkpointing=sft["gradient_checkpointing"],
        gradient_checkpointing_kwargs={"use_reentrant": False} if sft["gradient_checkpointing"] else None,
        use_liger_kernel="liger" in more, torch_compile="compile" in more, use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="sequential", dataset_kwargs={"skip_prepare_dataset": True}, logging_steps=1,
        save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    dataset = Dataset(pyarrow.table(rows), fingerprint="rows")  # dill cannot pickle this pyarrow's types for one
    watch = Watch()
    trainer = SFTTrainer(
        model, arguments, train_dataset=dataset, optimizers=(optimizer, rates), callbacks=[watch],
        processing_class=AutoTokenizer.from_pretrained(folder / "models/base", local_files_only=True),
    )  # fmt: skip
    load_s, started = time.monotonic() - begun, time.monotonic()
    trainer.train()
    train_s, saving = time.monotonic() - started, time.monotonic()
    weights: dict[str, Any] = trainer.model.state_dict()
    if sft["precision"] == "bf16":
        weights = {name: weight.to("cpu", torch.bfloat16) for name, weight in weights.items()}
    save_model(trainer.model, folder / "peer", weights=weights)
    tokenizer.save(folder / "peer")
    later = [i for step in steps[1:] for i in step.examples]
    told = {
        "versions": {name: version(name) for name in ("trl", "liger-kernel")},
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "load_s": load_s, "train_s": train_s, "save_s": time.monotonic() - saving, "peak_bytes": peak_bytes(),
        "later_tokens": sum(len(ids[i]) for i in later), "later_s": watch.ends[-1] - watch.ends[0],
    }  # fmt: skip
    (folder / "peer.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
