"""What reading a base takes of a host's memory, by process."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stages.runtime.model import save_model
from tests.workspace import ROOT

READ = """
import gc, os, pathlib, sys
from stages.core.topology import rank_of
from stages.runtime.ranks import Accelerated
from stages.runtime.training import Recipe

def held():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])

rank = rank_of(os.environ)
engine = Accelerated(sys.argv[1], Recipe(None, None, is_bf16=True), rank)
before = held()
model = engine.read(pathlib.Path("base"), engine.dtype)
gc.collect()
n_weights = sum(weight.numel() for weight in model.parameters())
pathlib.Path(f"held-{rank.rank}").write_text(str((held() - before) / n_weights))
engine.wait()
engine.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("strategy", "first", "second"), [("ddp", 4, 4), ("zero2", 2, 2), ("fsdp2", 4, 0)])
def test_bytes_a_weight_while_a_base_is_read(tmp_path, strategy, first, second):
    config = LlamaConfig(  # of large matrices, whose memory goes back to the system when they are freed
        vocab_size=64, hidden_size=4096, intermediate_size=4096, num_hidden_layers=1, num_attention_heads=4,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(LlamaForCausalLM(config).half(), tmp_path / "base")  # of neither type, so nothing stays mapped
    (tmp_path / "read.py").write_text(READ)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "read.py", strategy]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    held = [float((tmp_path / f"held-{rank}").read_text()) for rank in (0, 1)]
    assert held == pytest.approx([first, second], abs=1)  # 80 MB of imports are two thirds of a byte a weight
