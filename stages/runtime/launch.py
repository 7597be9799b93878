"""Starting the processes that train together, and ending them together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from tempfile import TemporaryFile

from stages.common.errors import InputError
from stages.core.topology import Hosts, environments

PARENT = "LIMA_PARENT"  # environment of a started process: the process that ends it by ending


def launch(command: Sequence[str], hosts: Hosts, n_processes: int, *, extra: Mapping[str, str]) -> None:
    """Run a command in several processes of this host, and wait for all.

    What the first of a host writes to standard error is seen; of another, the end, where it failed by itself.

    Args:
        command: of each process.
        hosts: this host among those that train together; port 0: a free one.
        n_processes: of this host.
        extra: environment of each process.

    Raises:
        InputError: one of them failed; the others are ended.
    """
    if hosts.port == 0:
        hosts = hosts._replace(port=_free_port())
    with ExitStack() as files:
        said = [files.enter_context(TemporaryFile()) for _ in range(n_processes)]
        processes = []
        try:
            for i, added in enumerate(environments(hosts, n_processes)):
                environment = {**os.environ, **extra, **added, PARENT: str(os.getpid())}
                stderr = None if added["LOCAL_RANK"] == "0" else said[i]
                processes.append(subprocess.Popen(command, env=environment, stderr=stderr))  # noqa: S603 - ourselves
            codes: list[int | None] = [None]
            while None in codes and not any(codes):
                time.sleep(0.1)
                codes = [process.poll() for process in processes]
        finally:
            _end(processes)
        failed = [(i, process.returncode) for i, process in enumerate(processes) if process.returncode]
        if failed:
            i, code = min(failed, key=lambda item: (item[1] == -signal.SIGTERM, item[0]))
            said[i].seek(max(0, said[i].seek(0, os.SEEK_END) - 2000))
            print(said[i].read().decode(errors="replace"), end="", file=sys.stderr)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise InputError(
                f"sft: process {i} of {n_processes} {how}; see what it said above, then run again to go on"
            )


def end_with_parent() -> None:
    """In a started process: end when the process that started it is gone, even if that was killed."""
    if PARENT in os.environ:
        threading.Thread(target=_outlive_not, args=(int(os.environ[PARENT]),), daemon=True).start()


def itself(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours in this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def _outlive_not(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
