"""A fresh clone to measure in, and a line that says what was measured with."""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def clone() -> Iterator[Path]:
    """Clone the committed project into a temporary folder with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="lima-bench-") as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
        yield Path(folder)


def timed(folder: Path, *command: str) -> tuple[float, str]:
    """Run a command there; seconds of wall time, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def set_param(folder: Path, path: str, value: object) -> None:
    """Change one leaf of params.yaml there."""
    yaml = YAML()
    tree = yaml.load((folder / "params.yaml").read_text())
    node = tree
    *parents, leaf = path.split(".")
    for key in parents:
        node = node[key]
    node[leaf] = value
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(tree, file)


def machine() -> str:
    """Processor, system and versions."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        names = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        cpu = names[0] if names else cpu
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "dvc", "polars"))
    return f"{os.cpu_count()} x {cpu}; {platform.system()}, Python {platform.python_version()}, {packages}"
