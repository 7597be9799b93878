"""A team shares runs through an S3 remote; a real server on loopback stands for theirs."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import boto3
import pytest

from tests.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server with an empty bucket named `team`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("w")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url)
        client(url).create_bucket(Bucket="team")
        yield url
    finally:
        server.terminate()
        server.wait()
        log.close()


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{url}/moto-api/").close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{url} does not answer")


def client(url: str):
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


def clone(workspace: Workspace, root: Path, url: str) -> Workspace:
    """A second clone with an empty cache, told where the remote is."""
    workspace.run("git", "clone", "--quiet", str(workspace.root), str(root))
    connect(Workspace(root), url)
    return Workspace(root)


def connect(workspace: Workspace, url: str) -> None:
    for option, value in {"endpointurl": url, "verify": "true", **KEYS}.items():
        if option == "endpointurl":
            workspace.run("dvc", "remote", "add", "--local", "--default", "team", "s3://team/project")
        workspace.run("dvc", "remote", "modify", "--local", "team", option, value)


@pytest.fixture(scope="module")
def pushed(finished: Workspace, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The finished run, pushed with its run cache."""
    workspace = finished.copy(tmp_path_factory.mktemp("pushed") / "project")
    connect(workspace, endpoint)
    workspace.run("dvc", "push", "--run-cache")
    return workspace


def test_another_clone_pulls_everything_and_recomputes_nothing(
    pushed: Workspace, endpoint: str, tmp_path: Path
) -> None:
    other = clone(pushed, tmp_path / "other", endpoint)
    other.run("dvc", "pull")
    assert (other.root / "reports/report.html").read_bytes() == (pushed.root / "reports/report.html").read_bytes()
    done = other.run("dvc", "repro")
    assert done.stdout.endswith("Data and pipelines are up to date.\n")


def test_repro_pull_recomputes_nothing(pushed: Workspace, endpoint: str, tmp_path: Path) -> None:
    other = clone(pushed, tmp_path / "other", endpoint)
    assert other.repro("--pull") == []
    assert other.outs() == pushed.outs()


def test_repro_pull_without_the_lock_recomputes_nothing_either(
    pushed: Workspace, endpoint: str, tmp_path: Path
) -> None:
    """The run cache stands in for the lock. It carries cached outs alone, so metrics are cached too."""
    other = clone(pushed, tmp_path / "other", endpoint)
    (other.root / "dvc.lock").unlink()
    assert other.repro("--pull") == []
    assert other.outs() == pushed.outs()


def test_a_corrupted_object_is_refused(pushed: Workspace, endpoint: str, tmp_path: Path) -> None:
    md5 = pushed.outs()["data/dedup/kept.parquet"]
    key = f"project/files/md5/{md5[:2]}/{md5[2:]}"
    s3 = client(endpoint)
    good = s3.get_object(Bucket="team", Key=key)["Body"].read()
    s3.put_object(Bucket="team", Key=key, Body=good[:-1] + b"!")
    other = clone(pushed, tmp_path / "other", endpoint)
    done = other.run("dvc", "pull", "data/dedup/kept.parquet", ok=False)
    assert not (other.root / "data/dedup/kept.parquet").exists()
    by_repro = other.run("dvc", "repro", "--pull", "dedup")
    s3.put_object(Bucket="team", Key=key, Body=good)
    assert done.returncode != 0
    assert re.search(r"kept\.parquet|corrupted", done.stderr)
    # `repro` says that it cannot have it, and computes it
    assert "Unable to pull data for stage: 'dedup'\nRunning stage 'dedup'" in by_repro.stdout
    assert (other.root / "data/dedup/kept.parquet").read_bytes() == good
