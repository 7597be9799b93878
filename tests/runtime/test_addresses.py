"""What is downloaded, kept and pinned; from a web server, from S3, from a mirror of either."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import boto3
import pytest

from stages import pull
from stages.common import files
from stages.common.errors import InputError, ParamsError
from stages.core import transfer
from stages.runtime.transfers import kept_files
from tests.downloading import archive, make_project, pins, pull_mine, sha256, write_params
from tests.runtime.file_server import FileServer, answers, drops, etag_of, serving
from tests.workspace import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

AI, BEER = "ai.stackexchange.com.7z", "beer.stackexchange.com.7z"
CONTENT = {AI: archive(2_000, 1), BEER: archive(3_000, 2)}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "CACHE", tmp_path / ".cache")
    monkeypatch.setattr(transfer, "FIRST_WAIT_S", 0.001)
    make_project(tmp_path)
    return tmp_path


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        server.files = {f"/dumps/{name}": content for name, content in CONTENT.items()}
        write_params(f"{server.url}/dumps", only=[AI, BEER])
        yield server


def refused(match: str) -> None:
    with pytest.raises((InputError, ParamsError), match=match) as caught:
        pull.main("mine")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- kept and pinned


def test_what_is_kept_is_not_asked_for_again(server):
    assert pull_mine() == CONTENT
    n_asked = len(server.asked)
    shutil.rmtree("data/pull")  # as DVC does before each run
    assert pull_mine() == CONTENT
    assert len(server.asked) == n_asked


def test_a_temporary_experiment_downloads_nothing_that_its_project_has(server, tmp_path, monkeypatch):
    pull_mine()
    workspace = tmp_path / ".dvc/tmp/exps/standalone/tmpab12"
    for name in ("data/catalog", "data/pins"):
        shutil.copytree(tmp_path / name, workspace / name)
    shutil.copyfile("params.yaml", workspace / "params.yaml")
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(files, "CACHE", workspace / ".cache")
    server.asked.clear()
    assert pull_mine() == CONTENT
    assert server.asked == []
    assert not (workspace / ".cache").exists()


def test_without_pins_a_file_of_the_same_version_is_not_fetched_again(server):
    pull_mine()
    shutil.rmtree("data/pins")
    server.asked.clear()
    assert pull_mine() == CONTENT
    assert [request for request in server.asked if request.method == "GET" and ".7z" in request.path] == []
    assert pins().count("\n") == 3


def test_a_file_that_changed_upstream_is_noticed_and_explained(server):
    """On another machine, which has the pins from git and no cache."""
    pull_mine()
    before = pins()
    shutil.rmtree(".cache")
    shutil.rmtree("data/pull")
    server.files[f"/dumps/{BEER}"] = archive(3_000, 3)  # of the same length
    refused(rf"/dumps/{BEER}: must have sha256 {sha256(CONTENT[BEER])} by data/pins/mine\.csv, which the first "
            rf"download wrote, got {sha256(archive(3_000, 3))}; it has changed since: remove its line there "
            r"to take it as it is now, or `dvc pull pull@mine` for the old one")  # fmt: skip
    assert pins() == before
    assert not Path("data/pull/mine").exists()
    server.asked.clear()
    Path("data/pins/mine.csv").write_text("\n".join(line for line in before.split("\n") if BEER not in line))
    assert pull_mine() == {**CONTENT, BEER: archive(3_000, 3)}
    assert server.gets(f"/dumps/{BEER}") == []  # what was refused had been kept


def test_a_file_of_another_length_than_pinned_is_refused_before_it_is_fetched(server):
    pull_mine()
    shutil.rmtree(".cache")
    server.asked.clear()
    server.files[f"/dumps/{BEER}"] = archive(5_000)
    refused(r"must have 3,000 bytes by data/pins/mine\.csv, .* got 5,000; it has changed since")


def test_a_mirror_is_held_against_the_same_pins(server):
    pull_mine()
    shutil.rmtree(".cache")
    with serving() as mirror:
        mirror.files = {f"/elsewhere/{name}": content for name, content in CONTENT.items()}
        write_params(f"{mirror.url}/elsewhere", only=[AI, BEER])
        assert pull_mine() == CONTENT
        shutil.rmtree(".cache")
        mirror.files[f"/elsewhere/{AI}"] = archive(2_000, 9)
        refused(f"/elsewhere/{AI}: must have sha256")


def test_pins_of_what_is_not_wanted_now_stay(server):
    pull_mine()
    before = pins()
    write_params(f"{server.url}/dumps", only=[AI])
    assert set(pull_mine()) == {AI}
    assert pins() == before


def test_a_damaged_kept_file_is_fetched_again(server, capfd):
    pull_mine()
    path = kept_files.KeptFiles(files.CACHE / "downloads").path(sha256(CONTENT[AI]))
    path.chmod(0o644)
    path.write_bytes(b"x" * 2_000)
    assert pull_mine() == CONTENT
    assert "damaged since it was kept; removed, it is fetched again" in capfd.readouterr().err
    assert len(server.gets(f"/dumps/{AI}")) == 2


def test_what_dvc_does_to_its_outs_does_not_reach_the_kept_files(server):
    """It makes them read-only, replaces them by links of its own, and removes them."""
    pull_mine()
    kept = kept_files.KeptFiles(files.CACHE / "downloads").path(sha256(CONTENT[AI]))
    out = Path("data/pull/mine", AI)
    out.chmod(0o444)
    out.rename("cache-of-dvc")
    os.link("cache-of-dvc", out)
    out.unlink()
    Path("cache-of-dvc").unlink()
    assert kept.read_bytes() == CONTENT[AI]
    assert pull_mine() == CONTENT
    assert len(server.gets(f"/dumps/{AI}")) == 1


@pytest.mark.parametrize("link", ["clone", "hard link", "copy"])
def test_a_file_is_given_out_as_the_file_system_can(server, link, monkeypatch):
    if link == "copy":
        monkeypatch.setattr(os, "link", _refuses)
    pull_mine()
    given = Path("data/pull/mine", AI)
    assert given.read_bytes() == CONTENT[AI]
    kept = kept_files.KeptFiles(files.CACHE / "downloads").path(sha256(CONTENT[AI]))
    shares = given.stat().st_ino == kept.stat().st_ino
    assert shares == (kept.stat().st_nlink > 1)
    assert not (link == "copy" and shares)


def _refuses(_source, _target):
    raise OSError(18, "Invalid cross-device link")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("file,bytes\n", r"data/pins/mine\.csv: must have the columns file, bytes, sha256, address"),
        (
            f"file,bytes,sha256,address\n{AI},x,{'0' * 64},u\n",
            r"must have bytes and sha256, got others; remove the line",
        ),
        (
            f"file,bytes,sha256,address\n../{AI},1,{'0' * 64},u\n",
            r"must hold names of files below the origin, got '\.\./",
        ),
    ],
)
def test_pins_of_another_form_are_refused(server, text, match):
    Path("data/pins").mkdir()
    Path("data/pins/mine.csv").write_text(text)
    refused(match)


# -------------------------------------------------------------------------------------------------- what is selected


def test_stack_overflow_is_one_archive_or_split_by_table(server):
    posts, users, comments = (f"stackoverflow.com-{table}.7z" for table in ("Posts", "Users", "Comments"))
    split = {name: archive(1_000, seed) for seed, name in enumerate((comments, posts, users))}
    server.files |= {f"/dumps/{name}": content for name, content in split.items()}
    write_params(f"{server.url}/dumps", only=["stackoverflow.com*"])
    assert pull_mine() == split
    server.files["/dumps/stackoverflow.com.7z"] = archive(1_000)
    assert pull_mine() == split  # pinned as split, and so it stays
    shutil.rmtree("data/pins")
    assert pull_mine() == {"stackoverflow.com.7z": archive(1_000)}
    server.files = {f"/dumps/{posts}": split[posts]}
    shutil.rmtree("data/pins")
    refused(
        rf"/dumps/{comments}: no such file, nor are 1 others of 3; correct `origin`, leave out what is not there by"
    )
    write_params(f"{server.url}/dumps", only=["stackoverflow.com*", f"!{users}", f"!{comments}"])
    assert pull_mine() == {posts: split[posts]}
    server.files = {}
    shutil.rmtree("data/pins")
    shutil.rmtree(".cache")
    refused(r"/dumps/stackoverflow\.com\.7z: no such file")


def test_what_a_person_must_fetch_is_named_where_a_mirror_lacks_it(server):
    write_params(f"{server.url}/dumps", "wikihow")
    refused(r"/dumps/wikihowSep\.csv: no such file; .* or put it there: a person fetches wikihowSep\.csv \(1\.2 GB, "
            r"a button on the page; no sum published\) at https://ucsb\S+ and puts it there$")  # fmt: skip
    server.files["/dumps/wikihowAll.csv"] = b"headline,title,text\n"
    assert set(pull_mine()) == {"wikihowAll.csv"}


def test_a_file_named_in_full_need_not_be_in_the_catalog(server):
    server.files["/dumps/RS_2012-01.zst"] = b"\x28\xb5\x2f\xfd rest"
    write_params(f"{server.url}/dumps", "reddit", only=["RS_2012-01.zst"])
    assert set(pull_mine()) == {"RS_2012-01.zst"}


@pytest.mark.parametrize(
    ("only", "match"),
    [
        (
            "../../etc/a.zst",
            r"sources\.mine\.only: must name files of format reddit \(\*\.zst or \*\.csv\), got '\.\./\.\./etc/a\.zst'",
        ),
        ("/etc/a.zst", r"got '/etc/a\.zst'"),
        ("passwd", r"got 'passwd'; see data/catalog/files/reddit\.csv"),
        (
            "RS_*",
            r"mine\.only: must fit files of data/catalog/files/reddit\.csv, got \['RS_\*'\], which fit none",
        ),
    ],
)
def test_a_name_that_is_no_raw_file_is_refused(server, only, match):
    write_params(f"{server.url}/dumps", "reddit", only=[only])
    refused(match)


# -------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("origin", "match"),
    [
        (
            "https://ann:open-sesame@host/x",
            r"origin: must be an address without user or password .*got 'https://\[hidden\]@h",
        ),
        (
            "https://host/x?X-Amz-Signature=open-sesame",
            r"must be an address without \? or # .*got 'https://host/x\?\[hidden",
        ),
        ("s3://bucket/x?versionId=open-sesame", r"without \? or #"),
        ("https://", r"with a host"),
        ("s3:///x", r"with a bucket"),
        ("https://host:port/x", r"a well-formed address"),
        ("https://host/a/../b", r"without \. or \.\. in its path"),
        ("https://host/a b", r"without spaces"),
        ("gopher://host/x", r"begins with https://, http:// or s3://"),
    ],
)
def test_an_address_that_cannot_be_or_holds_a_secret_is_refused_unseen(origin, match):
    write_params(origin)
    refused(match)
    with pytest.raises(ParamsError) as caught:
        pull.main("mine")
    assert "sesame" not in str(caught.value)


@pytest.mark.slow
def test_a_profile_takes_an_address_and_refuses_a_secret_before_it_is_written(fresh):
    fresh.run("python", "-m", "stages.profile", "lima-7b", "origin=s3://team/dumps/", f"revision={'0' * 40}")
    assert read_yaml(fresh.root / "params.yaml")["sources"]["wikihow"]["origin"] == "s3://team/dumps/wikihow"
    before = Path(fresh.root, "params.yaml").read_bytes()
    arguments = ("origin=https://ann:open-sesame@host", f"revision={'0' * 40}")
    bad = fresh.run("python", "-m", "stages.profile", "lima-7b", *arguments, ok=False)
    assert bad.returncode == 1
    assert "without user or password" in bad.stderr
    assert "sesame" not in bad.stdout + bad.stderr
    assert Path(fresh.root, "params.yaml").read_bytes() == before


def test_a_plain_folder_served_by_python_is_a_mirror(tmp_path):
    (tmp_path / "mirror").mkdir()
    for name, content in CONTENT.items():
        (tmp_path / "mirror" / name).write_bytes(content)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        write_params(f"http://127.0.0.1:{server.server_address[1]}/", only=[AI, BEER])
        try:
            assert pull_mine() == CONTENT
        finally:
            server.shutdown()
            thread.join()


# --------------------------------------------------------------------------------------------------------------- S3


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch, project: Path):
    """A bucket with the archives; keys and endpoint are in the environment, as AWS has them."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAOPENSESAME1",
        "AWS_SECRET_ACCESS_KEY": "open-sesame-secret",
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(project / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(project / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="team")
    for name, content in CONTENT.items():
        client.put_object(Bucket="team", Key=f"dumps/se/{name}", Body=content)
    write_params("s3://team/dumps//se/", only=[AI, BEER])
    yield client
    for item in client.list_objects_v2(Bucket="team").get("Contents", []):
        client.delete_object(Bucket="team", Key=item["Key"])
    client.delete_bucket(Bucket="team")


@pytest.mark.slow
def test_a_bucket_is_a_mirror_and_its_keys_are_written_nowhere(bucket, capfd):
    assert pull_mine() == CONTENT
    assert f"{AI},2000,{sha256(CONTENT[AI])},s3://team/dumps/se/{AI}\n" in pins()
    told = "".join(capfd.readouterr())
    written = [path for path in Path().rglob("*") if path.is_file()]
    for secret in ("open-sesame-secret", "AKIAOPENSESAME1"):
        assert secret not in told
        assert not [path for path in written if secret.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("is_same", [True, False])
def test_a_beginning_from_s3_is_gone_on_with_only_in_its_version(bucket, is_same):
    """What is gone on with, right or wrong, is kept; only in its version is it the file."""
    etag = bucket.head_object(Bucket="team", Key=f"dumps/se/{AI}")["ETag"]
    begun = CONTENT[AI][:600] + b"x" * 100  # to be known again
    with kept_files.KeptFiles(files.CACHE / "downloads").partial(f"s3://team/dumps/se/{AI}") as beginning:
        beginning.begin(0, etag if is_same else '"of another"')
        beginning.write(begun)
    write_params("s3://team/dumps/se", only=[AI])
    assert pull_mine() == {AI: begun + CONTENT[AI][700:] if is_same else CONTENT[AI]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("origin", "match"),
    [
        ("s3://team/nowhere", rf"^s3://team/nowhere/{AI}: no such file; correct `origin`"),
        ("s3://no-such-bucket/x", rf"^s3://no-such-bucket/x/{AI}: no such file"),
    ],
)
def test_what_is_not_in_the_bucket_is_one_sentence(bucket, origin, match):
    write_params(origin, only=[AI])
    refused(match)


@pytest.mark.slow
def test_keys_that_the_chain_cannot_find_are_one_sentence(bucket, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    refused(
        r"^s3://team/\S+: cannot be asked \(The config profile \(no-such-profile\) could not be found\); mend the AWS"
    )


@pytest.mark.slow
def test_no_s3_server_is_one_sentence(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    refused(r"^s3://team/\S+: cannot be fetched, it takes no connection \(4 attempts in a row\)")


@pytest.mark.slow
def test_s3_that_breaks_off_is_gone_on_with(bucket, monkeypatch):
    """A server that speaks as much of S3 as a download needs, and drops connections."""
    with serving() as server:
        server.files = {f"/team/dumps/se/{AI}": CONTENT[AI]}
        server.faults[f"/team/dumps/se/{AI}"] = [drops(700), answers(503), drops(1_500)]
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        write_params("s3://team/dumps/se", only=[AI])
        assert pull_mine() == {AI: CONTENT[AI]}
        asked = [(request.range, request.if_match) for request in server.gets(f"/team/dumps/se/{AI}")]
    etag = etag_of(CONTENT[AI])
    assert asked == [(None, None), *[("bytes=700-", etag)] * 2, ("bytes=1500-", etag)]


# --------------------------------------------------------------------------------------------------------------- DVC


@pytest.mark.slow
def test_dvc_runs_it_and_a_changed_parameter_downloads_nothing(fresh, server):
    params = fresh.root / "params.yaml"
    value = json.dumps({"format": "stack_exchange", "origin": f"{server.url}/dumps", "only": [AI, BEER]})
    text = params.read_text()
    line = next(line for line in text.split("\n") if line.startswith("  stack_exchange:"))
    params.write_text(text.replace(line, f"  stack_exchange: {value}"))
    fresh.run("dvc", "repro", "pull@stack_exchange")
    folder = fresh.root / "data/pull/stack_exchange"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    n_asked = len(server.asked)
    params.write_text(params.read_text().replace("max_attempts: 8", "max_attempts: 9"))
    done = fresh.run("dvc", "repro", "pull@stack_exchange")
    assert "0 of them downloaded now" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert len(server.asked) == n_asked
    assert fresh.run("git", "status", "--porcelain", "data/pins").stdout == "?? data/pins/\n"
    fresh.run("dvc", "unprotect", "data/pull/stack_exchange")
    (folder / AI).write_bytes(b"x")
    fresh.run("dvc", "repro", "pull@stack_exchange")
    assert (folder / AI).read_bytes() == CONTENT[AI]
    assert len(server.asked) == n_asked
