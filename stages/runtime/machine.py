"""What a process runs on: memory that it may take and has taken, names, versions."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from stages.core.training_cost import peak_flops

PACKAGES = ("torch", "transformers", "accelerate", "deepspeed")
CGROUPS = Path("/sys/fs/cgroup")


def host_bytes() -> int:
    """Memory of this host that its processes together may take: a container, pod or Slurm job may have less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _limits():
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdecimal():  # "max": no limit
            found = min(found, int(text))
    return found


def _limits() -> list[Path]:
    """Where the limits of this process's control group and of those above it stand, in versions 2 and 1."""
    own = Path("/proc/self/cgroup")
    lines = own.read_text().splitlines() if own.is_file() else []
    names = ["/", *(line.removeprefix("0::") for line in lines if line.startswith("0::"))]
    folders = {above for name in names for above in (CGROUPS / name.lstrip("/"), *(CGROUPS / name.lstrip("/")).parents)}
    within = sorted(folder for folder in folders if folder.is_relative_to(CGROUPS))
    return [CGROUPS / "memory/memory.limit_in_bytes", *(folder / "memory.max" for folder in within)]


def device_bytes(n_on_host: int) -> int:
    """Memory that a process may take: of its GPU as CUDA reports it, or its share of the host's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return host_bytes() // n_on_host


def peak_bytes() -> int:
    """The most that this process has held at a time: of GPU memory in tensors, or resident on the host."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_of_gpu() -> float | None:
    """Peak of this process's GPU, operations a second; None without one, or where it is not known."""
    return peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def versions() -> dict[str, str | None]:
    """Of what a result may depend on; None for what is not here."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return {**found, "cuda": torch.version.cuda, "driver": _driver()}


def hardware() -> dict[str, Any]:
    """Names and sizes of this host's parts."""
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"gpus": names, "cpu": cpu_name(), "n_cores": os.cpu_count(), "host_bytes": host_bytes()}


def cpu_name() -> str:
    """As the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _driver() -> str | None:
    if not torch.cuda.is_available():
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.split()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[0] if lines else None
