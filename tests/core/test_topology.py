"""What launchers and schedulers say, in their own words."""

import pytest

from stages.core.topology import Hosts, environments, first_host, hosts_of, rank_of

SKYPILOT = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
KUBERNETES = {"PET_NNODES": "3", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "job-0", "PET_MASTER_PORT": "23456"}
SLURM = {
    "SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "0", "SLURM_JOB_ID": "1234567", "SLURM_STEP_NODELIST": "gpu[003-004]",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "hosts"),
    [
        ({}, Hosts(1, 0, "127.0.0.1", 0)),
        (SKYPILOT, Hosts(2, 1, "10.0.0.1", 29500)),
        (KUBERNETES, Hosts(3, 2, "job-0", 23456)),
        (SLURM, Hosts(2, 0, "gpu003", 29500 + 4567)),
        ({"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}, Hosts(1, 0, "127.0.0.1", 0)),  # a batch script, not srun
        ({**SKYPILOT, "SKYPILOT_NUM_NODES": "1"}, Hosts(1, 0, "127.0.0.1", 0)),
    ],
)
def test_hosts_follow_from_the_scheduler(environment, hosts):
    assert hosts_of(environment) == hosts


def test_a_process_that_no_launcher_started_has_no_rank():
    assert rank_of({"WORLD_SIZE": "2"}) is None


def test_the_processes_of_all_hosts_have_the_ranks_in_order():
    sides = [environments(Hosts(2, i, "a", 5), 2) for i in (0, 1)]
    ranks = [rank_of(environment) for side in sides for environment in side]
    assert [rank.rank for rank in ranks] == [0, 1, 2, 3]
    assert [rank.local_rank for rank in ranks] == [0, 1, 0, 1]
    assert {(rank.world_size, rank.n_on_host) for rank in ranks} == {(4, 2)}
    assert all(environment["LIMA_STARTED"] == "4" for environment in sides[0])


@pytest.mark.parametrize(
    ("text", "first"), [("a", "a"), ("a,b", "a"), ("n[09-12]", "n09"), ("n[7,9]", "n7"), ("x-[1-2]-ib,y", "x-1-ib")]
)
def test_the_first_of_slurms_hosts(text, first):
    assert first_host(text) == first
