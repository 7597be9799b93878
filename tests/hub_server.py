"""A hub on loopback: models of this machine's folders, served and described as the hub does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.runtime.file_server import Fault, FileServer, answers, serving

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A FileServer with the paths of a hub."""

    def __init__(self, server: FileServer, hub_id: str) -> None:
        self.server = server
        self.hub_id = hub_id
        self.listing: dict[str, object] = {}

    @property
    def api(self) -> str:
        """Where the hub tells about the commit."""
        return f"/api/models/{self.hub_id}/revision/{REVISION}"

    @property
    def access(self) -> str:
        return f"/api/models/{self.hub_id}/auth-check"

    def path(self, name: str) -> str:
        """Where a file is."""
        return f"/{self.hub_id}/resolve/{REVISION}/{name}"

    def publish(self, folder: Path, **changed: object) -> None:
        """Serve a folder's files; large ones as large-file storage does, with their sha256."""
        siblings = []
        for file in sorted(folder.iterdir()):
            content = file.read_bytes()
            self.server.files[self.path(file.name)] = content
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, object] = {"rfilename": file.name, "size": len(content), "blobId": blob}
            if file.suffix in (".safetensors", ".bin"):
                entry["lfs"] = {
                    "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130,
                }  # fmt: skip
            siblings.append(entry)
        self.listing = {
            "id": self.hub_id, "sha": REVISION, "gated": False, "private": False, "siblings": siblings, **changed,
        }  # fmt: skip
        self.server.files[self.api] = json.dumps(self.listing).encode()
        self.server.files[self.access] = b"{}"

    def asked(self) -> list[str]:
        """Paths of all requests so far."""
        return [request.path for request in self.server.asked]


def says(status: int, code: str = "", message: str = "") -> Fault:
    """An answer in the hub's words."""
    return answers(status, X_Error_Code=code, X_Error_Message=message)


@contextmanager
def hub_with(folder: Path, hub_id: str = "org/name") -> Iterator[Hub]:
    """Run a hub that has one model."""
    with serving() as server:
        hub = Hub(server, hub_id)
        hub.publish(folder)
        yield hub
