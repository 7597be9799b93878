"""A model as judge: wall time, CPU, memory and calls of `python -m stages.judge`, against a server that takes its time.

python -m bench.judge [--pairs 1500] [--concurrency 64] [--delay 1.0]

A pair is judged in both orders, so 1,500 pairs are 3,000 verdicts. The server is a process of its own on loopback and
answers each request after `delay` seconds, whatever it is asked. The second run finds every reply in the cache. CPU is
user and system time of the stage, memory its highest resident set; `ideal` is the server's delay alone.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from bench.workspace import ROOT, machine
from stages.common.files import write_table
from stages.schema import PROMPT, RESPONSE

REPLY = {
    "id": "c1",
    "object": "chat.completion",
    "created": 0,
    "model": "slow-judge-1",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Answer A goes further. " * 20 + "\nVERDICT: A"},
        }
    ],
    "usage": {"prompt_tokens": 900, "completion_tokens": 110, "total_tokens": 1010},
}


class Run(NamedTuple):
    """One run of the stage."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    n_calls: int
    n_verdicts: int


def main(n_pairs: int, concurrency: int, delay_s: float) -> None:
    """Measure twice and print the table."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, delay_s), daemon=True)
    server.start()
    port = ours.recv()
    with tempfile.TemporaryDirectory(prefix="lima-bench-") as folder:
        root = Path(folder)
        write_run(root, n_pairs, base_url=f"http://127.0.0.1:{port}/v1", concurrency=concurrency)
        runs = {name: measure(root, ours) for name in ("first", "second")}
    server.terminate()
    ideal_s = math.ceil(2 * n_pairs / concurrency) * delay_s
    print(machine())
    print(f"{2 * n_pairs} verdicts, concurrency {concurrency}, {delay_s} s an answer: ideal {ideal_s:.1f} s\n")
    print("| run | wall, s | CPU, s | peak memory, MB | calls | verdicts |\n|---|---|---|---|---|---|")
    for name, run in runs.items():
        print(f"| {name} | {run.wall_s:.1f} | {run.cpu_s:.1f} | {run.peak_mb:.0f} | {run.n_calls} | {run.n_verdicts} |")


def measure(root: Path, server: Connection) -> Run:
    """Run the stage in a process of its own."""
    environment = {**os.environ, "DVC_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "stages.judge", "other"], cwd=root, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    if status:
        raise SystemExit("the stage failed")
    server.send("count")
    table = pl.read_parquet(root / "data/judge/other.parquet")
    scale = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, to bytes
    peak_mb = used.ru_maxrss * scale / 1e6
    n_verdicts = table["preference"].drop_nulls().len()
    return Run(wall_s, used.ru_utime + used.ru_stime, peak_mb, server.recv(), n_verdicts)


def write_run(root: Path, n: int, *, base_url: str, concurrency: int) -> None:
    """Write what the stage reads: prompts of 200 characters, answers of 1,500."""
    model = {
        "kind": "openai", "base_url": base_url, "model": "slow-judge", "api_key_env": None, "concurrency": concurrency,
        "timeout_s": 60.0, "max_attempts": 3, "temperature": 0.0, "max_reply_tokens": 1024, "structured": False,
        "price": {"input": 2.5, "output": 10.0}, "max_cost": 1000.0, "batch": None,
    }  # fmt: skip
    params = {
        "arms": {"ours": {"sample": {}, "sft": {}}}, "opponents": {"other": {}}, "annotators": {"slow": model},
        "judge": {"arm": "ours", "annotators": ["slow"]},
    }  # fmt: skip
    (root / "params.yaml").write_text(json.dumps(params))
    (root / "stages").symlink_to(ROOT / "stages")
    prompts = [
        {**dict.fromkeys(PROMPT), "id": f"p:{i}", "messages": [{"role": "user", "content": f"{i}: " + "why? " * 40}]}
        for i in range(n)
    ]
    write_table(root / "data/prompts/test.parquet", pl.DataFrame(prompts, schema=PROMPT), PROMPT)
    for folder, name in (("respond", "ours"), ("respond_opponent", "other")):
        rows = [(f"p:{i}", name, 0, f"{name} {i}: " + "because of this " * 93, "eot", 300) for i in range(n)]
        table = pl.DataFrame(rows, schema=RESPONSE, orient="row")
        write_table(root / f"data/{folder}/{name}.parquet", table, RESPONSE)


def serve(pipe: Connection, delay_s: float) -> None:
    """Answer every request alike, after a while; gives the port, and at each word the calls since the last."""
    n_calls = 0
    data = json.dumps(REPLY).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_calls
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            n_calls += 1
            await asyncio.sleep(delay_s)
            writer.write(answer)
            await writer.drain()

    def count() -> None:
        nonlocal n_calls
        pipe.recv()
        pipe.send(n_calls)
        n_calls = 0

    async def run() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        asyncio.get_running_loop().add_reader(pipe.fileno(), count)
        port: Any = server.sockets[0].getsockname()[1]
        pipe.send(port)
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1500)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds")
    arguments = parser.parse_args()
    main(arguments.pairs, arguments.concurrency, arguments.delay)
