"""What starts the GPU stages elsewhere: each template as its tool reads it, and what each node then runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.workspace import ROOT

DEPLOY = ROOT / "deploy"

# Stands in for a program: it writes down what it is called with, and by which node.
RECORDER = """#!/usr/bin/env bash
node="node=${PET_NODE_RANK:-${SKYPILOT_NODE_RANK:-}} of=${PET_NNODES:-} at=${PET_MASTER_ADDR:-}:${PET_MASTER_PORT:-}"
echo "$node $(basename "$0") $*" >> "$RECORD"
for ((i = 0; i < 100 && ${WAITED_FOR:-0} > 0 && ${PET_NODE_RANK:-1} == 0; i++)); do
  [ "$(grep -c 'python -m' "$RECORD")" -ge "$WAITED_FOR" ] && break
  sleep 0.1
done
"""
# Runs a step as Slurm does: once on each node, counted within the step.
SRUN = """#!/usr/bin/env bash
echo "srun $*" >> "$RECORD"
while [[ $1 == --* ]]; do
  case $1 in --nodes=*) nodes=${1#*=};; esac
  shift
done
for ((i = 0; i < nodes; i++)); do SLURM_NODEID=$i "$@"; done
"""
SCONTROL = """#!/usr/bin/env bash
[ "$1 $2" = "show hostnames" ] && printf '%s\\n' gpu-01 gpu-02 gpu-03
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which dvc and python only say that they were called."""
    binaries = tmp_path / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").write_text(f'export PATH="{binaries}:$PATH"\n')
    for name, text in {"dvc": RECORDER, "python": RECORDER, "srun": SRUN, "scontrol": SCONTROL}.items():
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    (tmp_path / "deploy").symlink_to(DEPLOY)
    monkeypatch.chdir(tmp_path)
    for name in ("PET_NODE_RANK", "PET_NNODES", "PET_MASTER_ADDR", "PET_MASTER_PORT", "SHARED_CHECKOUT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def called(checkout: Path, *command: str, **environment: str) -> list[str]:
    """What is called when a command runs in the checkout."""
    record = checkout / "record"
    record.write_text("")
    path = f"{checkout / '.venv/bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "RECORD": str(record), **environment}
    subprocess.run(command, cwd=checkout, env=env, check=True)
    return record.read_text().splitlines()


def read_yaml(path: Path) -> list[Any]:
    return list(YAML(typ="safe").load_all(path.read_text()))


@pytest.mark.parametrize("name", ["run.sh", "slurm.sbatch"])
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n", DEPLOY / name], check=True)


def test_one_machine_runs_the_stages_of_the_arm(checkout: Path) -> None:
    first, *_ = called(checkout, "deploy/run.sh", "bulk")
    assert first == "node= of= at=: dvc repro --pull --allow-missing sft@bulk generate@bulk"


@pytest.mark.parametrize("shared", ["", "1"])
def test_another_node_only_takes_part_in_the_training(checkout: Path, shared: str) -> None:
    node = {
        "PET_NNODES": "2",
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "a",
        "PET_MASTER_PORT": "1",
        "SHARED_CHECKOUT": shared,
    }
    at = "node=1 of=2 at=a:1"
    fetches = [] if shared else [f"{at} dvc pull base render@curated"]
    assert called(checkout, "deploy/run.sh", **node) == [*fetches, f"{at} python -m stages.sft curated"]


def sbatch_options() -> dict[str, str]:
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", (DEPLOY / "slurm.sbatch").read_text(), re.MULTILINE)
    assert len(lines) == (DEPLOY / "slurm.sbatch").read_text().count("\n#SBATCH")
    return dict(lines)


def test_slurm_options_stand_before_the_first_command_and_are_known() -> None:
    known = "job-name, nodes, ntasks-per-node, gpus-per-node, exclusive, mem, time, requeue, open-mode, output"
    assert ", ".join(sbatch_options()) == known
    text = (DEPLOY / "slurm.sbatch").read_text()
    assert text.rindex("#SBATCH") < text.index("set -euo pipefail")


@pytest.mark.parametrize("n_nodes", [1, 3])
def test_slurm_starts_each_node_once_with_its_rank(checkout: Path, n_nodes: int) -> None:
    job = {"SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_NUM_NODES": str(n_nodes), "SLURM_JOB_NODELIST": "gpu-[01-03]",
           "SLURM_JOB_ID": "30007", "SLURM_CPUS_ON_NODE": "96", "WAITED_FOR": str(n_nodes - 1)}  # fmt: skip
    first, *rest = called(checkout, "bash", "deploy/slurm.sbatch", "bulk", **job)
    assert first == "node= of= at=: dvc repro --pull --allow-missing base render@bulk"
    at = f"of={n_nodes} at=gpu-01:30007"
    expected = [f"node=0 {at} dvc repro --pull --allow-missing sft@bulk generate@bulk"]
    expected += [f"node={i} {at} python -m stages.sft bulk" for i in range(1, n_nodes)]
    assert sorted(line for line in rest if " dvc config" not in line and not line.startswith("srun")) == expected
    steps = [line for line in rest if line.startswith("srun")]
    assert len(steps) == (n_nodes > 1)
    assert all("--nodes=2 --ntasks=2 --relative=1 --cpus-per-task=96" in line for line in steps)


def test_skypilot_starts_each_node_once_with_its_rank(checkout: Path) -> None:
    [task] = read_yaml(DEPLOY / "skypilot.yaml")
    assert set(task) == {"name", "num_nodes", "workdir", "resources", "envs", "setup", "run"}
    assert all(isinstance(value, str) for value in task["envs"].values())
    node = {**task["envs"], "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    head, *_ = called(checkout, "bash", "-c", task["run"], SKYPILOT_NODE_RANK="0", **node)
    assert head == "node=0 of= at=: dvc repro --pull --allow-missing sft@curated generate@curated"
    assert called(checkout, "bash", "-c", task["run"], SKYPILOT_NODE_RANK="1", **node) == [
        "node=1 of= at=: dvc pull base render@curated",
        "node=1 of= at=: python -m stages.sft curated",
    ]
    subprocess.run(["bash", "-n", "-c", task["setup"]], check=True)


def rendered(**values: str) -> list[Any]:
    """The Kubernetes template as `envsubst` with the list of its first lines makes it."""
    text = (DEPLOY / "kubernetes.yaml").read_text()
    [listed] = re.findall(r"envsubst '([^']+)'", text)
    assert sorted(f"${name}" for name in values) == sorted(listed.split())
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return list(YAML(typ="safe").load_all(text))


VALUES = {
    "NAME": "lima",
    "ARM": "bulk",
    "NODES": "2",
    "GPUS": "8",
    "IMAGE": "a/b:1",
    "CLAIM": "c",
    "CHECKOUT": "lima-dvc",
}


def test_kubernetes_starts_each_node_once_with_its_rank(checkout: Path) -> None:
    service, job = rendered(**VALUES)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["PET_MASTER_ADDR"] == "lima-0.lima"
    command = [*container["command"], *container["args"]]
    head, *_ = called(checkout, *command, JOB_COMPLETION_INDEX="0", **env)
    assert head == "node=0 of=2 at=lima-0.lima:29500 dvc repro --pull --allow-missing sft@bulk generate@bulk"
    assert called(checkout, *command, JOB_COMPLETION_INDEX="1", **env) == [
        "node=1 of=2 at=lima-0.lima:29500 python -m stages.sft bulk"
    ]


def test_kubernetes_objects_are_of_the_schema() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for entry in rendered(**VALUES):
        validate.validate(entry, "1.31", strict=True)
