"""topology: which processes train together, from what launchers and schedulers put into the environment.

A process that a launcher has started knows its rank. One that has not starts a process for each device of its host,
and joins those of other hosts where the scheduler says that there are some: every host runs the same command.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

STARTED = "LIMA_STARTED"  # environment of the processes that the stage starts: how many there are in all
STRATEGY = "LIMA_STRATEGY"  # environment: a strategy by name, in place of the one that fits
PROCESSES = "LIMA_PROCESSES"  # environment: processes on each host, in place of one for each device
DEFAULT_PORT = 29_500


class Rank(NamedTuple):
    """A process among those that train together."""

    rank: int
    world_size: int
    local_rank: int
    n_on_host: int


class Hosts(NamedTuple):
    """The machines that train together."""

    n: int
    number: int  # of this one, from 0
    address: str  # of the first
    port: int


def rank_of(environment: Mapping[str, str]) -> Rank | None:
    """Read what a launcher (torchrun, accelerate launch, this stage) has set; None where there was none.

    >>> rank_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    Rank(rank=3, world_size=4, local_rank=1, n_on_host=2)
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys():
        return None
    rank, world_size, local_rank = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Rank(rank, world_size, local_rank, int(environment.get("LOCAL_WORLD_SIZE", world_size)))


def hosts_of(environment: Mapping[str, str]) -> Hosts:
    """Find the hosts by SkyPilot's variables, torchrun's (PET_*, as Kubernetes jobs set) or Slurm's; else this one.

    A Slurm job counts as several hosts only within `srun`, which starts the command on each.
    """
    if int(environment.get("SKYPILOT_NUM_NODES", 1)) > 1:
        first = environment["SKYPILOT_NODE_IPS"].split()[0]
        return Hosts(
            int(environment["SKYPILOT_NUM_NODES"]), int(environment["SKYPILOT_NODE_RANK"]), first, DEFAULT_PORT
        )
    if int(environment.get("PET_NNODES", 1)) > 1:
        port = int(environment.get("PET_MASTER_PORT", DEFAULT_PORT))
        return Hosts(
            int(environment["PET_NNODES"]), int(environment["PET_NODE_RANK"]), environment["PET_MASTER_ADDR"], port
        )
    if int(environment.get("SLURM_STEP_NUM_NODES", 1)) > 1:
        port = DEFAULT_PORT + int(environment["SLURM_JOB_ID"]) % 10_000
        first = first_host(environment["SLURM_STEP_NODELIST"])
        return Hosts(int(environment["SLURM_STEP_NUM_NODES"]), int(environment["SLURM_NODEID"]), first, port)
    return Hosts(1, 0, "127.0.0.1", 0)


def first_host(nodelist: str) -> str:
    """The first of Slurm's list of hosts.

    >>> [first_host(text) for text in ("gpu[003-004,7]", "a1,b[2-3]", "node-[1-2]-ib", "n")]
    ['gpu003', 'a1', 'node-1-ib', 'n']
    """
    found = re.match(r"([^,\[]*)(?:\[([^\],-]*)[^\]]*\]([^,]*))?", nodelist)
    assert found is not None, "matches the empty text, too"
    before, first, after = found.groups()
    return f"{before}{first or ''}{after or ''}"


def environments(hosts: Hosts, n_processes: int) -> list[dict[str, str]]:
    """What to add to the environment of each process of this host."""
    world_size = hosts.n * n_processes
    return [
        {
            "RANK": str(hosts.number * n_processes + local_rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(n_processes),
            "MASTER_ADDR": hosts.address,
            "MASTER_PORT": str(hosts.port),
            STARTED: str(world_size),
        }
        for local_rank in range(n_processes)
    ]
