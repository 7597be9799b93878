"""Findings of rows, kept across runs outside every DVC out: one file a source, written whole, checked when read.

A file is named by its source and by all that its numbers follow from: permutations, shingles and the code that reads
rows. What it says of dev and test prompts counts only under the same prompts and limits. A file that is truncated,
altered or of another form counts as absent and is written anew. Runs side by side each write a file of their own and
then put it in place: the last one stays, and any of them is right.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stages.core import known
from stages.core.contamination import Contamination
from stages.core.known import Findings, joined_findings
from stages.core.minhash import MinHashing

_CODE = ("compiled", "contamination", "dialogues", "known", "minhash", "words")  # of stages/core: what reads rows
_CHECKSUM_BYTES = 32


class SketchCache:
    """The files under one folder that fit a configuration and the dev and test prompts."""

    def __init__(self, folder: Path, config: MinHashing, limits: Contamination, prompts: Sequence[str]) -> None:
        code = [(Path(known.__file__).parent / f"{name}.py").read_bytes() for name in _CODE]
        numbers = [config.seed, config.shingle_words, config.n_permutations]
        self._key = _digest(json.dumps(numbers).encode(), *code)
        self._guard = _digest(limits.model_dump_json().encode(), *(text.encode() for text in prompts), *code)
        self._folder = folder
        self._n_permutations = config.n_permutations
        self._as_read: dict[str, bytes] = {}  # checksums, by source

    def path(self, source: str) -> Path:
        """The file of a source."""
        return self._folder / f"{_digest(self._key.encode(), source.encode())}.findings"

    def load(self, sources: Iterable[str]) -> Findings:
        """What is known of the rows of some sources."""
        return joined_findings([part for source in sources if (part := self._read(source))], self._n_permutations)

    def save(self, source: str, findings: Findings) -> None:
        """Keep what is known of a source's rows in place of what was; where nothing can be written, nothing is kept."""
        head = json.dumps({"n_rows": len(findings.digests), "guard": self._guard}).encode() + b"\n"
        content = [head, *(np.ascontiguousarray(column).tobytes() for column in findings)]
        checksum = _checksum(content)
        path = self.path(source)
        if self._as_read.get(source) == checksum:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".partial", delete=False) as file:
                try:
                    file.writelines([*content, checksum])
                    file.close()
                    Path(file.name).replace(path)
                except OSError:
                    Path(file.name).unlink()

    def _read(self, source: str) -> Findings | None:
        try:
            data = self.path(source).read_bytes()
        except OSError:
            return None
        content = memoryview(data)[:-_CHECKSUM_BYTES]
        head, found, _ = data.partition(b"\n")
        if not found or _checksum([content]) != data[-_CHECKSUM_BYTES:]:
            return None
        self._as_read[source] = data[-_CHECKSUM_BYTES:]
        facts = json.loads(head)
        n, k = facts["n_rows"], self._n_permutations
        columns = []
        at = len(head) + 1
        for dtype, shape in (("u8", (n, 2)), ("u1", (n, k)), ("u4", (n,)), ("?", (n,))):
            column = np.frombuffer(data, dtype=dtype, count=int(np.prod(shape)), offset=at).reshape(shape)
            columns.append(column)
            at += column.nbytes
        digests, sketches, n_words, is_clean = columns
        return Findings(digests, sketches, n_words, is_clean & (facts["guard"] == self._guard))


def _checksum(parts: Iterable[bytes | memoryview]) -> bytes:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.digest()


def _digest(*parts: bytes) -> str:
    """Name some bytes; where one part ends and the next begins counts."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:32]
