"""Whatever a hub does, the model's files come whole, byte for byte, or a run ends in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common import files
from stages.common.errors import InputError, ParamsError
from stages.core import transfer
from stages.runtime.hub import find_model
from tests.hub_server import REVISION, Hub, hub_with, says
from tests.runtime.file_server import Fault, Handler, answers, drops, etag_of, ignores_range
from tests.tiny import make_base, write_params
from tests.workspace import ROOT

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("model"))


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, which is the one that is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "CACHE", tmp_path / ".cache")
    monkeypatch.setattr(transfer, "FIRST_WAIT_S", 0.001)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub_with(model) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.server.url)
        yield hub


def fetched() -> dict[str, bytes]:
    """Fetch the model, and give its files."""
    folder, is_kept = find_model("org/name", REVISION, section="base")
    assert is_kept
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def refused(match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        fetched()
    assert "\n" not in str(caught.value)


def unversioned(*, stop_at: int | None = None) -> Fault:
    """Serves ranges, and names no version of what it serves."""

    def fault(handler: Handler, content: bytes) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        handler.begin(206 if start else 200, {**headers, "Content-Length": str(len(content) - start)})
        handler.wfile.write(content[start:stop_at])
        handler.close_connection = True

    return fault


def test_a_temporary_experiment_asks_for_nothing_that_its_project_has(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched()
    n_asked = len(hub.asked())
    monkeypatch.setattr(files, "CACHE", tmp_path / ".dvc/tmp/exps/tmpab12/.cache")
    assert fetched() == contents(model)
    assert len(hub.asked()) == n_asked


def test_the_files_come_as_they_are_and_a_rerun_asks_for_nothing(hub: Hub, model: Path) -> None:
    assert fetched() == contents(model)
    n_asked = len(hub.asked())
    assert fetched() == contents(model)
    assert len(hub.asked()) == n_asked


def test_code_and_other_formats_are_not_fetched(hub: Hub, model: Path, tmp_path: Path) -> None:
    more = shutil.copytree(model, tmp_path / "more")
    for name in ("modeling_evil.py", "pytorch_model.bin", "consolidated.safetensors", "README.md"):
        (more / name).write_bytes(b"raise SystemExit")
    hub.publish(more)
    assert fetched() == contents(model)
    assert not [path for path in hub.asked() if path.endswith((".py", ".bin", "consolidated.safetensors", ".md"))]


@pytest.mark.parametrize(("faults", "asked"), [
    ([drops(20_000), drops(50_000)], [0, 20_000, 50_000]),
    ([answers(503), drops(1_000), answers(429, Retry_After="0")], [0, 0, 1_000, 1_000]),
    ([unversioned(stop_at=30_000), unversioned(stop_at=50_000), unversioned()], [0, 30_000, 50_000]),
    ([drops(40_000), ignores_range(stop_at=50_000)], [0, 40_000, 50_000]),
])  # fmt: skip
def test_a_download_that_breaks_off_goes_on(hub: Hub, model: Path, faults: list[Fault], asked: list[int]) -> None:
    hub.server.faults[hub.path(WEIGHTS)] = faults
    assert fetched() == contents(model)
    ranges = [request.range for request in hub.server.gets(hub.path(WEIGHTS))]
    assert ranges == [f"bytes={start}-" if start else None for start in asked]


def test_two_parts_that_do_not_fit_are_fetched_anew(hub: Hub, model: Path) -> None:
    other = bytes(len((model / WEIGHTS).read_bytes()))
    hub.server.faults[hub.path(WEIGHTS)] = [
        lambda handler, _: unversioned(stop_at=30_000)(handler, other),
        unversioned(),
    ]
    assert fetched() == contents(model)


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_wrong_bytes_of_the_right_length_are_refused_and_not_kept(hub: Hub, model: Path, name: str) -> None:
    content = (model / name).read_bytes()
    hub.server.files[hub.path(name)] = content[:-3] + b" }\n"
    refused(rf"/{name}: must have (?:sha256|git_blob) \w+ by the hub, got \w+; it was damaged on its way")
    hub.server.files[hub.path(name)] = content
    assert fetched() == contents(model)


def test_a_truncated_shard_is_refused(hub: Hub, model: Path) -> None:
    hub.server.files[hub.path(WEIGHTS)] = (model / WEIGHTS).read_bytes()[:-100]
    refused(r"/model\.safetensors: must have [\d,]+ bytes by the hub, got [\d,]+")


@pytest.mark.parametrize(("path", "fault", "match"), [
    ("api", says(404, "RepoNotFound"), r"^org/name: no such model on the hub, or a private one; correct base\.model"),
    ("api", says(401), r"^org/name: no such model on the hub, or a private one"),
    ("api", says(404, "RevisionNotFound"), rf"^org/name: no commit {REVISION}; correct base\.revision"),
    ("api", says(403, "", "Access to this resource is disabled."), r"^org/name: disabled by the hub"),
    ("api", says(403), r"^org/name: cannot be asked for at http\S+, the hub answers 403"),
    ("api", says(500), r"^org/name: cannot be asked for at http\S+, the hub answers 500; try again"),
    ("api", answers(200, b"<html>"), r"^org/name: cannot be asked for"),
    ("access", says(401, "GatedRepo"), r"^org/name: gated; accept its licence on its hub page and set HF_TOKEN$"),
    ("access", says(403, "GatedRepo"), r"^org/name: gated;"),
])  # fmt: skip
def test_what_the_hub_refuses_is_one_sentence(hub: Hub, path: str, fault: Fault, match: str) -> None:
    hub.server.always[getattr(hub, path)] = fault
    refused(match)


def test_a_wrong_token_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    hub.server.always[hub.api] = says(401, "", "Invalid credentials in Authorization header")
    refused(r"^http://127\.0\.0\.1:\d+: does not accept HF_TOKEN; make a new one$")


def test_a_gated_model_of_an_account_without_access_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    hub.server.always[hub.access] = says(403, "GatedRepo")
    refused("accept its licence on its hub page and ask for access with the account of HF_TOKEN$")


def test_the_token_goes_to_the_hub_and_not_where_it_redirects_to(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    elsewhere = hub.server.url.replace("127.0.0.1", "localhost")
    hub.server.files["/cdn/weights"] = (model / WEIGHTS).read_bytes()
    hub.server.always[hub.path(WEIGHTS)] = answers(302, Location=f"{elsewhere}/cdn/weights")
    assert fetched() == contents(model)
    tokens = {request.path: request.authorization for request in hub.server.asked}
    assert tokens["/cdn/weights"] is None
    assert tokens[hub.path(WEIGHTS)] == tokens[hub.api] == "Bearer hf_secret_of_mine"
    kept = [path for path in files.CACHE.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"hf_secret" in path.read_bytes()]


def test_a_renamed_model_is_named(hub: Hub, model: Path) -> None:
    hub.publish(model, id="neworg/name")
    refused(r"^org/name: renamed, the hub has it as neworg/name; write that as base\.model")


def test_another_commit_than_the_pinned_one_is_refused(hub: Hub, model: Path) -> None:
    hub.publish(model, sha="f" * 40)
    refused("^org/name: the hub gives commit f{40} for 0123")


def test_a_repository_of_pickles_is_refused_before_anything_is_fetched(hub: Hub, model: Path, tmp_path: Path) -> None:
    pickles = shutil.copytree(model, tmp_path / "pickles")
    (pickles / WEIGHTS).rename(pickles / "pytorch_model.bin")
    hub.publish(pickles)
    refused(r"^org/name: no model\.safetensors at that commit, only pytorch_model\.bin; take a commit or a model")
    assert hub.asked() == [hub.api]


def test_a_model_that_needs_its_own_code_is_refused_before_its_weights(hub: Hub, model: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(model, tmp_path / "odd")
    auto_map = {"AutoConfig": "configuration_odd.OddConfig"}
    (odd / "config.json").write_text(json.dumps({"model_type": "odd", "auto_map": auto_map}))
    hub.publish(odd)
    refused("model type 'odd' needs code from its own folder, which is never run")
    assert hub.path(WEIGHTS) not in hub.asked()


def test_weights_in_parts_come_by_their_index(hub: Hub, model: Path, tmp_path: Path) -> None:
    parts = shutil.copytree(model, tmp_path / "parts")
    (parts / WEIGHTS).rename(parts / "model-00001-of-00002.safetensors")
    shutil.copy(parts / "model-00001-of-00002.safetensors", parts / "model-00002-of-00002.safetensors")
    (parts / "unused.safetensors").write_bytes(b"x")
    index = parts / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"w{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}}))
    hub.publish(parts)
    assert set(fetched()) == {path.name for path in parts.iterdir()} - {"unused.safetensors"}
    for names, match in ((["../../evil.safetensors"], "must name"), (["gone.safetensors"], "lacks gone.safetensors")):
        index.write_text(json.dumps({"weight_map": dict(enumerate(names))}))
        shutil.rmtree(files.CACHE)
        hub.publish(parts)
        refused(match)


def test_a_kept_file_that_was_damaged_is_fetched_again(hub: Hub, model: Path) -> None:
    fetched()
    [kept] = [
        path
        for path in (files.CACHE / "downloads/sha256").rglob("*")
        if path.is_file() and path.stat().st_size > 50_000
    ]
    kept.chmod(0o644)
    kept.write_bytes(b"x" + kept.read_bytes()[1:])
    assert fetched() == contents(model)
    assert len(hub.server.gets(hub.path(WEIGHTS))) == 2


def test_offline_is_enough_once_all_is_kept(hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(r"^org/name: not all of it is kept here, and HF_HUB_OFFLINE forbids to fetch it")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    fetched()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetched() == contents(model)
    shutil.rmtree(files.CACHE / "downloads")
    refused("HF_HUB_OFFLINE forbids")


def test_a_hub_that_takes_no_connection_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    refused(r"^org/name: cannot be asked for at http://127\.0\.0\.1:9, .*; try again, what came is kept")


def test_a_full_disk_is_said_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    refused(r"downloads: must have [\d,]+ bytes free for org/name, got 0")


@pytest.mark.parametrize("name", ["org/na me", "org/..%2f", "o?rg/name"])
def test_a_name_that_no_hub_has_is_refused(hub: Hub, name: str) -> None:
    with pytest.raises(ParamsError, match=r"base\.model: must be a folder or a hub id"):
        find_model(name, REVISION, section="base")
    assert hub.asked() == []


def size_of(path: Path) -> int:
    """In bytes; 0 of a file that was renamed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_a_killed_download_goes_on_in_the_next_run_of_the_stage(hub: Hub, model: Path, tmp_path: Path) -> None:
    """Through `python -m stages.base` with HF_ENDPOINT, killed while the weights come."""

    def stands_still(handler: Handler, content: bytes) -> None:
        handler.begin(200, {"ETag": etag_of(content), "Content-Length": str(len(content))})
        handler.wfile.write(content[:50_000])
        handler.wfile.flush()
        handler.server.files.released.wait(120)
        handler.close_connection = True

    pretrain = {"seed": 0, "vocab_size": 400, "hidden_size": 16, "n_layers": 1, "n_heads": 2, "context_tokens": 32,
                "batch_size": 2, "n_steps": 3, "lr": 1e-3}  # fmt: skip
    write_params(tmp_path, base={"model": "org/name", "revision": REVISION, "pretrain": pretrain})
    env = {**os.environ, "HF_ENDPOINT": hub.server.url, "DVC_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.base"]
    hub.server.faults[hub.path(WEIGHTS)] = [stands_still]
    with subprocess.Popen(command, cwd=tmp_path, env=env) as process:
        deadline = time.monotonic() + 180
        while 50_000 not in map(size_of, tmp_path.glob(".cache/downloads/partial/*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "models/base").exists()
    subprocess.run(command, cwd=tmp_path, env=env, check=True)
    assert contents(tmp_path / "models/base") == contents(model)
    assert [request.range for request in hub.server.gets(hub.path(WEIGHTS))] == [None, "bytes=50000-"]
