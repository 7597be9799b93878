"""A web server on loopback for files: ranges, validators and HEAD as they should be, or faults as its test tells it."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Request(NamedTuple):
    method: str
    path: str
    range: str | None
    if_range: str | None
    if_match: str | None
    authorization: str | None


# Answers one GET of a file in its own way.
Fault = Callable[["Handler", bytes], None]


class FileServer:
    """Files by path, and for each path the faults of its next GETs, used up one by one; `always` is never used up."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.heads: dict[str, Fault] = {}  # of HEAD, never used up
        self.asked: list[Request] = []
        self.url = ""
        self.released = threading.Event()  # lets go of those who stall

    def gets(self, path: str) -> list[Request]:
        return [request for request in self.asked if request.method == "GET" and request.path == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        files = self.server.files
        path = self.path.partition("?")[0]
        headers = (self.headers.get(name) for name in ("Range", "If-Range", "If-Match", "Authorization"))
        files.asked.append(Request(self.command, path, *headers))
        content = files.files.get(path)
        fault = files.heads.get(path) if self.command == "HEAD" else files.always.get(path)
        if self.command == "GET" and files.faults.get(path):
            fault = files.faults[path].pop(0)
        if fault:
            fault(self, content or b"")
        elif content is None:
            self.begin(404, {"Content-Length": "0"})
        else:
            self.serve(content)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def serve(self, content: bytes, *, stop_at: int | None = None, etag: str | None = None) -> None:
        """As it should be; with `stop_at`, the connection is closed before that byte of the file."""
        etag = etag or etag_of(content)
        if self.headers.get("If-Match", etag) != etag:
            self.begin(412, {"Content-Length": "0"})
            return
        given = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(given[1]) if given and self.headers.get("If-Range", etag) == etag else 0
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        if given and start >= len(content):
            self.begin(416, {**headers, "Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.begin(206 if start else 200, {**headers, "Content-Length": str(len(content) - start)})
        if self.command == "GET":
            self.wfile.write(content[start:stop_at])
            self.wfile.flush()
        self.close_connection = stop_at is not None

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    files: FileServer

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client may go at any time


def etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def drops(at: int) -> Fault:
    """The connection breaks before a byte of the file."""
    return lambda handler, content: handler.serve(content, stop_at=at)


def answers(status: int, body: bytes = b"", **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def fault(handler: Handler, _: bytes) -> None:
        handler.begin(status, {**named, "Content-Length": str(len(body))})
        if handler.command == "GET":
            handler.wfile.write(body)

    return fault


def says_length(n_bytes: int) -> Fault:
    """A Content-Length of its own; the body is what it is."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.begin(200, {"Content-Length": str(n_bytes), "ETag": etag_of(content)})
        if handler.command == "GET":
            handler.wfile.write(content)
        handler.close_connection = True

    return fault


def ignores_range(*, stop_at: int | None = None) -> Fault:
    def fault(handler: Handler, content: bytes) -> None:
        del handler.headers["Range"]
        handler.serve(content, stop_at=stop_at)

    return fault


def sends_range(first: int, last: int, total: int, etag: str, body: bytes) -> Fault:
    """206 with a range, version and body of its own, whatever was asked for."""

    def fault(handler: Handler, _: bytes) -> None:
        handler.begin(
            206, {"Content-Range": f"bytes {first}-{last}/{total}", "ETag": etag, "Content-Length": str(len(body))}
        )
        handler.wfile.write(body)

    return fault


def stalls(at: int) -> Fault:
    """Sends up to a byte of the file, and then nothing for as long as the client waits."""

    def fault(handler: Handler, content: bytes) -> None:
        start = int((re.findall(r"\d+", handler.headers.get("Range", "")) or ["0"])[0])
        handler.begin(
            206 if start else 200,
            {
                "ETag": etag_of(content),
                "Content-Length": str(len(content) - start),
                **({"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}),
            },
        )
        handler.wfile.write(content[start:at])
        handler.wfile.flush()
        handler.server.files.released.wait(30)
        handler.close_connection = True

    return fault


def trickles() -> Fault:
    """Sends a byte now and then, without end."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.begin(200, {"ETag": etag_of(content), "Content-Length": str(len(content))})
        for byte in content:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            if handler.server.files.released.wait(0.02):
                break
        handler.close_connection = True

    return fault


def unframed(*, stop_at: int | None = None) -> Fault:
    """No length: the body ends when the connection does."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.begin(200, {"Connection": "close", "ETag": etag_of(content)})
        if handler.command == "GET":
            handler.wfile.write(content[:stop_at])
        handler.close_connection = True

    return fault


def chunked(*, stop_at: int | None = None, padding: int = 0) -> Fault:
    """In chunks of 1,000 bytes; with `stop_at` it ends without the last one."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.begin(200, {"Transfer-Encoding": "chunked", "ETag": etag_of(content)})
        if handler.command == "HEAD":
            return
        sent = (content + b"x" * padding)[:stop_at]
        for start in range(0, len(sent), 1000):
            chunk = sent[start : start + 1000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if stop_at is None:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return fault


@contextmanager
def serving(*, certificate: Path | None = None) -> Iterator[FileServer]:
    """Run a server for the length of a block; with a certificate and its key, one of https."""
    files = FileServer()
    with _Server(("127.0.0.1", 0), Handler) as server:
        server.files = files
        files.url = f"http://127.0.0.1:{server.server_address[1]}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            files.url = f"https://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield files
        finally:
            files.released.set()
            server.shutdown()
            thread.join()
