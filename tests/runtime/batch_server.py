"""A server on loopback with the Batch API's files and batches, well or badly behaved, as its test tells it to."""

import email
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.runtime.chat_server import running

# A request's line -> the lines of output for it, as they stand in the file.
Behaviour = Callable[[dict[str, Any]], list[dict[str, Any]]]


def answered(line: dict[str, Any], text: str, *, status: int = 200, n_prompt: int = 100, n_reply: int = 10) -> Any:
    """One line of output."""
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge-1-2025-01-01",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": n_prompt, "completion_tokens": n_reply, "total_tokens": n_prompt + n_reply},
    }
    if status != 200:
        body = {"error": {"message": text, "code": text}}
    return {"id": "r", "custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}


class BatchServer:
    """The server's address, and what it was sent."""

    def __init__(self, behave: Behaviour, *, ends_as: str, n_looks: int) -> None:
        self.behave = behave
        self.ends_as = ends_as
        self.n_looks = n_looks  # how often a batch is still under way when looked at
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.n_faults = 0  # 503s still to send
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                with server.lock:
                    self.answer(server.post(self.path, data, self.headers["Content-Type"]))

            def do_GET(self) -> None:
                with server.lock:
                    self.answer(server.get(self.path.partition("?")[0]))

            def answer(self, sent: Any) -> None:
                status = 200
                if server.n_faults:
                    server.n_faults -= 1
                    status, sent = 503, {"error": {"message": "busy", "code": None}}
                data = (sent if isinstance(sent, str) else json.dumps(sent)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def lines(self) -> list[dict[str, Any]]:
        """Every request that a batch was made of."""
        names = [batch["input_file_id"] for batch in self.batches.values()]
        return [json.loads(line) for name in names for line in self.files[name].splitlines()]

    def post(self, path: str, data: bytes, kind: str) -> Any:
        if self.n_faults:
            return {}
        if path == "/v1/files":
            parts = email.message_from_bytes(f"Content-Type: {kind}\n\n".encode() + data).get_payload()
            (file,) = [part for part in parts if part.get_filename()]  # type: ignore[union-attr]
            number = f"file-{len(self.files)}"
            self.files[number] = file.get_payload(decode=True).decode()  # type: ignore[union-attr]
            return {
                "id": number,
                "object": "file",
                "bytes": len(data),
                "created_at": 0,
                "filename": "r",
                "purpose": "batch",
            }
        number = f"batch-{len(self.batches)}"
        self.batches[number] = {
            **json.loads(data), "id": number, "object": "batch", "created_at": 0, "status": "in_progress",
        }  # fmt: skip
        return self.batches[number]

    def get(self, path: str) -> Any:
        if self.n_faults:
            return {}
        if path == "/v1/batches":
            return {"object": "list", "data": list(self.batches.values()), "has_more": False}
        if path.endswith("/content"):
            return self.files[path.split("/")[-2]]
        batch = self.batches[path.split("/")[-1]]
        self.looks[batch["id"]] = self.looks.get(batch["id"], 0) + 1
        if self.looks[batch["id"]] > self.n_looks and batch["status"] == "in_progress":
            self.end(batch)
        return batch

    def end(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.ends_as
        if self.ends_as == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "bad", "message": "line 1 is wrong"}]}
            return
        asked = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        output = [answer for line in reversed(asked) for answer in self.behave(line)]  # in another order
        batch["output_file_id"] = f"file-{len(self.files)}"
        self.files[batch["output_file_id"]] = "".join(f"{json.dumps(line)}\n" for line in output)


@contextmanager
def serving_batches(behave: Behaviour, *, ends_as: str = "completed", n_looks: int = 1) -> Iterator[BatchServer]:
    """Serve until the end of the block."""
    server = BatchServer(behave, ends_as=ends_as, n_looks=n_looks)
    with running(server.http):
        yield server
