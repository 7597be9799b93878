"""A server on loopback that speaks the chat completions protocol, well or badly, as its test tells it to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the server sends: a status, a body (raw text, or JSON), headers, after how many seconds."""

    status: int
    body: str | dict[str, Any]
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    delay_s: float = 0.0


def completion(
    text: str | None, *, finish_reason: str = "stop", refusal: str | None = None, delay_s: float = 0
) -> Answer:
    """A well-formed chat completion, from a model that names itself other than it was asked for."""
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge-1-2025-01-01",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text, "refusal": refusal},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return Answer(200, body, delay_s=delay_s)


def fault(status: int, code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI words it."""
    body = {"error": {"message": f"no: {code or status}", "type": "fault", "code": code}}
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


# The request's JSON body and how often its last message was asked before -> what to send.
Behaviour = Callable[[dict[str, Any], int], Answer]


class ChatServer:
    """The server's address, and every request it got, in order."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = server.note(body, self.headers["Authorization"])
                time.sleep(answer.delay_s)
                data = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
                try:
                    self.send_response(answer.status)
                    headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **answer.headers}
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client has gone
                    self.close_connection = True
                if headers["Content-Length"] != str(len(data)):
                    self.close_connection = True  # promised more than it sent

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # connections that wait to be accepted; 5 is the default

        self.http = Server(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def note(self, body: dict[str, Any], key: str) -> Answer:
        """Remember a request and choose the answer."""
        with self.lock:
            question = body["messages"][-1]["content"]
            n_before = self.asked.count(question)
            self.asked.append(question)
            self.bodies.append(body)
            self.keys.append(key)
            self.times.append(time.monotonic())
            return self.behave(body, n_before)


@contextmanager
def running(http: ThreadingHTTPServer) -> Iterator[None]:
    """Serve in a thread until the end of the block."""
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        http.server_close()
        thread.join(5)


@contextmanager
def serving(behave: Behaviour) -> Iterator[ChatServer]:
    """Serve until the end of the block."""
    server = ChatServer(behave)
    with running(server.http):
        yield server


def endpoint(server: ChatServer, **changes: Any) -> dict[str, Any]:
    """Parameters of a generator behind the server."""
    keys = {
        "base_url": server.base_url,
        "model": "{folder}",
        "api_key_env": None,
        "send": ["temperature", "top_p"],
        "concurrency": 4,
        "timeout_s": 10.0,
        "max_attempts": 1,
        "price": None,
        "max_cost": None,
        "batch": None,
    }
    return {**keys, **changes}
