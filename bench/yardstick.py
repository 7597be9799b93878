"""How fast this machine is: what a plain training step of a small LLaMA and a start of Python reach on it.

python -m bench.yardstick [--repeats 5]

The step is transformers' own, on one thread, without anything of this project: forward, backward, clipping, fused
AdamW, of 0.94 M parameters (hidden 128, 4 layers, vocabulary 1,024) on 16 rows of 128 tokens in fp32. Times of other
benches, taken on another machine, can be set in relation by it. Prints a Markdown table.
"""

import argparse
import statistics
import subprocess
import sys
import time

from bench.workspace import machine

TOKENS = 16 * 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"{machine()}\n")
    print("| what | n | lowest | median | highest |")
    print("|---|---|---|---|---|")
    show("plain training step, one thread, tokens/s", training_steps(repeats))
    imports = "import torch; from transformers import LlamaForCausalLM"
    show("import torch and LlamaForCausalLM, s", [_import(imports) for _ in range(repeats)])


def training_steps(repeats: int) -> list[float]:
    """Tokens a second of wall time, each over five steps."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    rows = torch.randint(0, 1024, (16, 128))

    def steps(n: int) -> float:
        start = time.perf_counter()
        for _ in range(n):
            model(input_ids=rows, labels=rows, use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return n * TOKENS / (time.perf_counter() - start)

    steps(2)
    return [steps(5) for _ in range(repeats)]


def _import(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def show(name: str, values: list[float]) -> None:
    """Print one row."""
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = 0 if middle > 100 else 1
    print(f"| {name} | {len(values)} | {low:,.{digits}f} | {middle:,.{digits}f} | {high:,.{digits}f} |", flush=True)


if __name__ == "__main__":
    main()
