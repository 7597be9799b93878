"""Every way that a server can fail ends in the file, byte for byte, or in one sentence and nothing that looks whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import pull
from stages.common import files
from stages.common.errors import InputError
from stages.core import transfer
from stages.core.catalog import Known
from stages.runtime import addresses
from stages.runtime.transfers.downloads import Downloads, Job
from stages.runtime.transfers.kept_files import KeptFiles
from tests.downloading import archive, make_project, pins, pull_mine, sha256, write_params
from tests.runtime.file_server import (
    FileServer,
    answers,
    chunked,
    drops,
    etag_of,
    ignores_range,
    says_length,
    sends_range,
    serving,
    stalls,
    trickles,
    unframed,
)
from tests.workspace import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "beer.stackexchange.com.7z"
PATH = f"/dumps/{NAME}"
BEER = archive(50_000)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server with one archive, and a project that pulls it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "CACHE", tmp_path / ".cache")
    monkeypatch.setattr(transfer, "FIRST_WAIT_S", 0.001)
    make_project(tmp_path)
    with serving() as server:
        server.files[PATH] = BEER
        write_params(f"{server.url}/dumps", only=[NAME])
        yield server


def ranges(server: FileServer, path: str = PATH) -> list[str | None]:
    return [request.range for request in server.gets(path)]


def partials() -> list[Path]:
    """The beginnings of files."""
    return [path for path in (files.CACHE / "downloads/partial").iterdir() if path.suffix != ".json"]


def refused(match: str) -> str:
    """Pull, to be refused in one sentence; nothing is left that looks whole."""
    with pytest.raises(InputError, match=match) as caught:
        pull.main("mine")
    assert "\n" not in str(caught.value)
    assert not Path("data/pull/mine").exists()
    assert not Path("data/pins").exists()
    return str(caught.value)


# ----------------------------------------------------------------------------------------------- ends in the whole file


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        ([], [None]),
        ([drops(20_000)], [None, "bytes=20000-"]),
        ([drops(20_000), drops(20_000), drops(20_001), drops(49_999)],
         [None, "bytes=20000-", "bytes=20000-", "bytes=20001-", "bytes=49999-"]),
        ([drops(0), drops(0), drops(1)], [None, None, None, "bytes=1-"]),
        ([drops(20_000), ignores_range()], [None, "bytes=20000-"]),
        ([answers(503), answers(500), answers(429)], [None] * 4),
        ([answers(503, Retry_After="0"), answers(429, Retry_After="-3"), answers(503, Retry_After="soon")], [None] * 4),
        ([drops(20_000), answers(503, b"<html>busy</html>")], [None, "bytes=20000-", "bytes=20000-"]),
        ([drops(20_000), sends_range(0, 49_999, 50_000, etag_of(BEER), BEER)], [None, "bytes=20000-", None]),
        ([drops(20_000), sends_range(20_000, 49_999, 50_000, '"other"', b"x" * 30_000)], [None, "bytes=20000-", None]),
        ([drops(20_000), answers(416, Content_Range="bytes */700")], [None, "bytes=20000-", None]),
        ([drops(20_000), answers(412)], [None, "bytes=20000-", None]),
        ([drops(20_000), sends_range(20_000, 29_999, 50_000, etag_of(BEER), BEER[20_000:30_000])],
         [None, "bytes=20000-", "bytes=30000-"]),
        ([chunked()], [None]),
        ([chunked(stop_at=7_000)], [None, "bytes=7000-"]),
        ([says_length(90_000)], [None, "bytes=50000-"]),  # 416: nothing is missing
    ],
)  # fmt: skip
def test_a_passing_fault_ends_in_the_whole_file(server, faults, asked):
    server.heads[PATH] = answers(405)  # GET alone tells
    server.faults[PATH] = faults
    assert pull_mine() == {NAME: BEER}
    assert ranges(server) == asked
    assert partials() == []
    assert pins() == f"file,bytes,sha256,address\n{NAME},50000,{sha256(BEER)},{server.url}{PATH}\n"


@pytest.mark.parametrize("n_bytes", [50_000, 10_000, 90_000])
def test_what_is_gone_on_with_is_of_the_version_begun_with(server, n_bytes):
    """The file changes while it is fetched: not a byte of the old one is in the new one."""
    server.heads[PATH] = answers(405)
    changed = archive(n_bytes, seed=1)

    def drops_and_changes(handler, content):
        handler.serve(content, stop_at=20_000)
        server.files[PATH] = changed

    server.faults[PATH] = [drops_and_changes]
    assert pull_mine() == {NAME: changed}
    assert server.gets(PATH)[1].if_range == etag_of(BEER)


def test_a_server_that_stands_still_is_left_and_asked_for_the_rest(server):
    write_params(f"{server.url}/dumps", only=[NAME], timeout_s=0.2)
    server.faults[PATH] = [stalls(12_345), trickles()]
    assert pull_mine() == {NAME: BEER}
    assert ranges(server)[:2] == [None, "bytes=12345-"]


def test_a_date_in_retry_after_is_waited_for(server):
    """It comes back before that: refused, as it may ask twice."""
    opens = int(time.time()) + 2

    def opens_then(handler, content):
        if time.time() >= opens:
            handler.serve(content)
        else:
            answers(503, Retry_After=formatdate(opens, usegmt=True))(handler, content)

    server.always[PATH] = opens_then
    write_params(f"{server.url}/dumps", only=[NAME], max_attempts=2)
    assert pull_mine() == {NAME: BEER}


def test_several_files_are_fetched_at_once_and_one_bar_counts_them(server):
    """The first to come waits until the third is there: three threads, or a stand-still."""
    names = [f"{site}.stackexchange.com.7z" for site in ("ai", "beer", "coffee")]
    started = {name: archive(1_000, seed) for seed, name in enumerate(names)}
    for name, content in started.items():
        server.files[f"/dumps/{name}"] = content

    def waits(handler, content):
        while len({request.path for request in server.asked if request.method == "GET" and ".7z" in request.path}) < 3:
            time.sleep(0.005)
        handler.serve(content)

    server.always = {f"/dumps/{name}": waits for name in names}
    write_params(f"{server.url}/dumps", only=names)
    assert pull_mine() == started


FAULTS = st.one_of(
    st.integers(0, 5_000).map(drops),
    st.integers(0, 5_000).map(lambda at: ignores_range(stop_at=at)),
    st.integers(0, 5_000).map(lambda at: chunked(stop_at=at)),
    st.sampled_from(
        [answers(503), answers(429, Retry_After="0"), answers(416), answers(412), ignores_range(), chunked()]
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FAULTS, max_size=6), st.booleans())
def test_any_row_of_passing_faults_ends_in_the_same_bytes(server, faults, is_killed):
    content = archive(5_000, seed=3)
    server.files[PATH], server.faults[PATH] = content, list(faults)
    job = Job(NAME, f"{server.url}{PATH}", Known("", None, {}), "", is_pinned=False)
    with TemporaryDirectory() as folder:
        kept = KeptFiles(Path(folder))
        if is_killed:  # what a run left that was killed within its first piece
            with kept.partial(job.address) as beginning:
                beginning.begin(0, etag_of(content))
                beginning.write(content[:7])
        downloads = Downloads(kept, concurrency=1, timeout_s=5.0, max_attempts=9, max_file_bytes=10**6)
        n_bytes: list[int] = []
        assert downloads.fetch(job, n_bytes.append) == sha256(content)
        assert kept.path(sha256(content)).read_bytes() == content
        assert sum(n_bytes) == 5_000  # what the bar shows


# ------------------------------------------------------------------------------------------------- ends in a sentence


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (answers(404), r"/dumps/beer\S+7z: has no such file \(it answers 404\); correct `origin`"),
        (answers(403), r"gives no access \(it answers 403\); check rights and keys"),
        (answers(400), r"answers 400; correct `origin`"),
        (answers(204), r"answers 204"),
        (answers(503, Retry_After="7200"), r"answers 503 and asks to wait 7,200 s; run again then"),
        (answers(503), r"cannot be fetched, answers 503 \(4 attempts in a row\); run again when it is well"),
        (drops(0), r"cannot be fetched, it breaks the connection \(4 attempts"),
        (ignores_range(stop_at=20_000), r"cannot be fetched, it breaks the connection \(4 attempts"),
        (answers(200, b"\n<!DOCTYPE html><p>Please log in"), r"must be the file beer\S+7z, got a web page; correct"),
        (answers(200, b"plain text"), r"must be the file beer\S+7z, got no 7z file"),
        (answers(200, b""), r"must be whole, got an archive of 0 bytes|got an empty file|got no 7z file"),
        (answers(200, BEER, Content_Encoding="gzip"), r"sends the file packed \(gzip\) though asked not to"),
        (says_length(40_000), r"must be whole, got 40,000 of the 50,000 bytes that its header counts"),
        (says_length(200_000_000), r"must have at most 100,000,000 bytes, got 200,000,000; raise `pull"),
        (unframed(), r"must come with a length or a checksum, .* got neither; put a SHA256SUMS beside it"),
        (answers(302, Location=PATH), r"redirects more than 10 times; correct `origin`"),
        (answers(302, Location="http://[bad/"), r"cannot be asked"),
        (sends_range(5, 9, 10, '"x"', b"12345"), r"cannot be fetched, it sends another part"),
    ],
)  # fmt: skip
def test_a_lasting_fault_is_one_sentence(server, fault, match):
    server.heads[PATH] = answers(405)
    server.always[PATH] = fault
    told = refused(match)
    assert len(told) < 400


def test_a_body_without_length_is_believed_with_a_checksum(server):
    server.files["/dumps/SHA256SUMS"] = f"{sha256(BEER)} *{NAME}\n".encode()
    server.heads[PATH] = answers(405)
    server.faults[PATH] = [unframed(stop_at=30_000)]
    refused(r"must be whole, got 30,000 of the 50,000 bytes")
    server.faults[PATH] = [unframed()]
    assert pull_mine() == {NAME: BEER}


def test_a_body_that_never_ends_is_cut_off(server):
    server.files["/dumps/SHA256SUMS"] = f"{sha256(BEER)} *{NAME}\n".encode()
    server.heads[PATH] = answers(405)
    server.always[PATH] = chunked(padding=300_000)
    write_params(f"{server.url}/dumps", only=[NAME], max_file_bytes=100_000)
    refused(r"it sends more than it said \(4 attempts in a row\)")


def test_two_lengths_are_one_too_many(server):
    server.heads[PATH] = says_length(60_000)
    server.files["/dumps/dumps_files.xml"] = f'<files><file name="{NAME}"><size>60000</size></file></files>'.encode()
    refused(r"must have 60,000 bytes by dumps_files\.xml, got 50,000; it is damaged or another file")


@pytest.mark.parametrize(
    ("path", "listing", "match"),
    [
        ("/dumps/SHA256SUMS", f"{'0' * 64}  ./{NAME}\n", rf"must have sha256 0+ by SHA256SUMS, got {sha256(BEER)}"),
        ("/dumps/dumps_files.xml", f'<files><file name="{NAME}"><md5>{"1" * 32}</md5></file></files>',
         rf"must have md5 1+ by dumps_files\.xml, got {hashlib.md5(BEER).hexdigest()}"),
        ("/dumps/dumps_files.xml", '<!DOCTYPE x [<!ENTITY a "aa">]><files>&a;</files>', r"must declare no document"),
    ],
)  # fmt: skip
def test_a_wrong_checksum_is_one_sentence(server, path, listing, match):
    server.files[path] = listing.encode()
    refused(match)
    assert len(server.gets(PATH)) <= 1


def test_the_checksums_of_archive_org_are_compared(server):
    sums = f"<md5>{hashlib.md5(BEER).hexdigest()}</md5><sha1>{hashlib.sha1(BEER).hexdigest()}</sha1>"
    listing = f'<files><file name="{NAME}"><size>50000</size>{sums}</file><file name="x"/></files>'
    server.files["/dumps/dumps_files.xml"] = listing.encode()
    assert pull_mine() == {NAME: BEER}


@pytest.mark.parametrize("known_by", ["SHA256SUMS", "pin"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_download_gone_on_with_is_begun_anew_before_its_checksum_is_called_wrong(server, known_by, killed):
    """The beginning was of another version, and the server lied about that."""
    if known_by == "pin":
        pull_mine()
        server.asked.clear()
        shutil.rmtree(".cache")
    else:
        server.files["/dumps/SHA256SUMS"] = f"{sha256(BEER)}  {NAME}\n".encode()
    stale = archive(50_000, seed=9)[:20_000]
    if killed:
        with KeptFiles(files.CACHE / "downloads").partial(f"{server.url}{PATH}") as partial:
            partial.begin(0, etag_of(BEER))
            partial.write(stale)
    else:
        old = stale + BEER[20_000:]
        server.faults[PATH] = [lambda handler, _: handler.serve(old, stop_at=20_000, etag=etag_of(BEER))]
    assert pull_mine() == {NAME: BEER}
    assert ranges(server) == [None, "bytes=20000-", None][killed:]
    kept = [path for path in (files.CACHE / "downloads/sha256").rglob("*") if path.is_file()]
    assert [(path.name, sha256(path.read_bytes())) for path in kept] == [(sha256(BEER), sha256(BEER))]


def test_pages_in_place_of_lists_say_nothing(server):
    for name in ("SHA256SUMS", "dumps_files.xml"):
        server.files[f"/dumps/{name}"] = b"<!DOCTYPE html><html><body>Not here &nbsp;</html>"
    assert pull_mine() == {NAME: BEER}


def test_a_fault_of_one_file_stops_the_others_and_keeps_what_came(server):
    names = [f"{site}.stackexchange.com.7z" for site in ("ai", "beer", "coffee")]
    server.files |= {f"/dumps/{name}": BEER for name in names}
    server.faults["/dumps/ai.stackexchange.com.7z"] = [stalls(30_000)]

    def fails_when_the_other_stalls(handler, _):
        while 30_000 not in [path.stat().st_size for path in partials()]:
            time.sleep(0.005)
        handler.begin(403, {"Content-Length": "0"})
        server.released.set()

    server.faults[PATH] = [fails_when_the_other_stalls]
    write_params(f"{server.url}/dumps", only=names)
    refused("gives no access")
    assert pull_mine() == dict.fromkeys(names, BEER)
    assert server.gets("/dumps/ai.stackexchange.com.7z")[-1].range == "bytes=30000-"


def test_a_full_disk_is_said_before_the_first_byte(server, monkeypatch):
    write_params(f"{server.url}/dumps", only=[NAME], max_file_bytes=10**18, max_total_bytes=10**18)
    server.heads[PATH] = says_length(10**17)
    refused(r"downloads: must have 100,000,000,000,000,000 bytes free for sources\.mine, got [\d,]+; free space")
    assert server.gets(PATH) == []


def test_more_than_the_limit_is_said_before_the_first_byte(server):
    write_params(f"{server.url}/dumps", only=[NAME], max_total_bytes=49_999)
    refused(r"sources\.mine: must have at most 49,999 bytes to download, got 50,000 in 1 files; choose some by")
    assert server.gets(PATH) == []
    write_params(f"{server.url}/dumps", only=[NAME], max_total_bytes=50_000)
    assert pull_mine() == {NAME: BEER}


def test_more_than_the_limit_is_noticed_as_it_comes_where_no_length_is_said(server):
    server.heads[PATH] = server.always[PATH] = chunked()
    write_params(f"{server.url}/dumps", only=[NAME], max_total_bytes=49_999)
    refused(r"sources\.mine: must have at most 49,999 bytes to download, got more of files whose length no server says")
    write_params(f"{server.url}/dumps", only=[NAME], max_total_bytes=50_000)
    assert pull_mine() == {NAME: BEER}


def test_a_disk_that_fills_is_noticed_before_it_is_full_where_no_length_is_said(server, monkeypatch):
    server.heads[PATH] = server.always[PATH] = chunked()
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(addresses.shutil, "disk_usage", lambda _: usage._replace(free=2**26 - 1))
    refused(r"downloads: must have 67,108,864 bytes free, got 67,108,863 while files come whose length no server says")


def test_nothing_listens(server):
    write_params("http://127.0.0.1:9/dumps", only=[NAME])
    refused(r"^http://127\.0\.0\.1:9/dumps/beer\S+: cannot be fetched, it takes no connection \(4 attempts in a row\)")


# --------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_killed_run_goes_on_from_the_byte_where_it_stopped(server, number, status):
    """An interrupt does not wait for a server that stands still, either: it would for a minute."""
    write_params(f"{server.url}/dumps", only=[NAME], timeout_s=60.0)
    server.faults[PATH] = [stalls(33_333)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DVC_ROOT", None)
    run = subprocess.Popen([sys.executable, "-m", "stages.pull", "mine"], env=environment)
    while sum(path.stat().st_size for path in Path(".cache").glob("downloads/partial/*") if not path.suffix) < 33_333:
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(run.pid, number)
    assert run.wait(timeout=30) == status
    assert not Path("data/pull").exists()
    assert pull_mine() == {NAME: BEER}
    assert ranges(server) == [None, "bytes=33333-"]


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_two_runs_do_not_write_one_file(server):
    import fcntl

    server.always[PATH] = drops(10)
    refused("breaks the connection")  # and leaves a beginning
    (partial,) = partials()
    with partial.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        refused(r"another run is downloading it; wait for that")


def test_a_damaged_beginning_is_not_believed(server):
    server.faults[PATH] = [drops(20_000), answers(403)]
    refused("gives no access")
    (about,) = (files.CACHE / "downloads/partial").glob("*.json")
    about.write_text("{")
    assert pull_mine() == {NAME: BEER}
    assert ranges(server)[-1] is None


# ---------------------------------------------------------------------------------------------------------------- keys


def test_keys_for_a_web_server_come_from_netrc_and_are_not_shown(server, monkeypatch, capfd):
    netrc = Path("netrc")
    netrc.write_text("machine 127.0.0.1 login ann password open-sesame-1\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc.absolute()))
    server.faults[PATH] = [answers(403)]
    assert "sesame" not in refused("gives no access")
    assert pull_mine() == {NAME: BEER}
    assert server.gets(PATH)[-1].authorization.startswith("Basic ")
    kept = [path for path in Path().rglob("*") if path.is_file() and path != netrc]
    assert not [path for path in kept if b"sesame" in path.read_bytes()]
    assert "sesame" not in "".join(capfd.readouterr())


def test_a_signed_redirect_is_not_shown(server, capfd):
    """What a server redirects to may be signed: its query is in no sentence and in no file."""
    server.heads[PATH] = answers(405)
    server.always[PATH] = answers(302, Location="http://127.0.0.1:9/x?X-Amz-Signature=abcdef0123456789")
    told = refused("it takes no connection")
    assert "abcdef" not in told
    assert "abcdef" not in "".join(capfd.readouterr())
    assert not [path for path in Path().rglob("*") if path.is_file() and b"abcdef" in path.read_bytes()]


# ------------------------------------------------------------------------------------------------------------------ TLS


@pytest.mark.parametrize(
    ("is_trusted", "fault", "match"),
    [
        (True, None, None),
        (False, None, r"^https://localhost:\d+/dumps/beer\S+: shows a certificate that is not trusted here; correct"),
        (True, answers(302, Location="http://127.0.0.1:9/x"), r"it takes no connection|redirects from https"),
        (True, "to plain", r"redirects from https to an address without it; correct `origin`"),
    ],
)
def test_https_is_trusted_or_refused_and_never_left(server, tmp_path, monkeypatch, is_trusted, fault, match):
    certificate = make_certificate(tmp_path)
    if is_trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(certificate=certificate) as secure:
        secure.files[PATH] = BEER
        if fault:
            secure.heads[PATH] = answers(405)
            secure.always[PATH] = answers(302, Location=f"{server.url}{PATH}") if fault == "to plain" else fault
        write_params(f"{secure.url}/dumps", only=[NAME])
        if match:
            refused(match)
        else:
            assert pull_mine() == {NAME: BEER}


def make_certificate(folder: Path) -> Path:
    """A key and its own certificate for localhost, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "localhost.pem"
    path.write_bytes(secret + pem)
    return path
