"""Answers of a model folder, kept as they end: a killed run goes on where it was.

A file under .cache/answers belongs to one model, one way of decoding and one state of the code that decodes. A line is
an answer with its checksum, written in one piece behind the others, so that runs side by side may share the file; a
line that a crash cut off, or that was altered, counts as absent.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from stages.common.errors import InputError
from stages.common.files import first_line, shared_cache
from stages.core import sampling
from stages.core.sampling import Decoding
from stages.runtime.model import weight_files
from stages.runtime.shards import file_digest

_CODE = ("decoding", "nucleus", "sampling")  # of stages/core: what an answer's tokens follow from
_LIBRARIES = ("torch", "transformers")
_CHECKSUM_CHARS = 32


class KeptAnswer(NamedTuple):
    """Tokens of one answer, and the token that ended it, if one did."""

    ids: list[int]
    stop_id: int | None


class AnswerLog:
    """One file of answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, KeptAnswer] = {}
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise _refused(path, error) from None
        for line in lines:
            checksum, _, text = line.partition(b" ")
            if checksum.decode(errors="replace") == _digest(text):
                row = json.loads(text)
                self.kept[row["key"]] = KeptAnswer(row["ids"], row["stop_id"])

    @classmethod
    def of(cls, folder: Path, decoding: Decoding, stop_ids: frozenset[int], *, stop: str | None = None) -> "AnswerLog":
        """The file for a model folder's answers, which end with one of some tokens, or with a text.

        Raises:
            InputError: the folder or the file cannot be read.
        """
        # All but what leaves an answer as it is: how many others there are, and how many are decoded together.
        how = decoding.model_dump(include=set(Decoding.model_fields) - {"n_samples", "batch_size"})
        how |= {"stop_ids": sorted(stop_ids), "stop": stop}
        code = [(Path(sampling.__file__).parent / f"{name}.py").read_bytes() for name in _CODE]
        libraries = [f"{name} {version(name)}" for name in _LIBRARIES]
        parts = [model_digest(folder).encode(), json.dumps(how, sort_keys=True).encode(), *code]
        return cls(shared_cache() / "answers" / f"{_digest(*parts, *map(str.encode, libraries))}.log")

    @contextmanager
    def writing(self) -> Iterator["AnswerLog"]:
        """Open the file to add answers.

        Raises:
            InputError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise _refused(self.path, error) from None
        try:
            self._append(b"\n")  # closes a line that a crash cut off
            yield self
        finally:
            os.close(self._file)

    def keep(self, key: str, answer: KeptAnswer) -> None:
        """Add an answer.

        Raises:
            InputError: it cannot be written.
        """
        text = json.dumps({"key": key, **answer._asdict()}).encode()
        self._append(f"{_digest(text)} ".encode() + text + b"\n")
        self.kept[key] = answer

    def _append(self, data: bytes) -> None:
        try:
            os.write(self._file, data)
        except OSError as error:
            raise _refused(self.path, error) from None


def answer_key(prompt_id: str, sample: int, prompt_ids: list[int]) -> str:
    """Names an answer within a file."""
    return _digest(json.dumps([prompt_id, sample, prompt_ids]).encode())


def model_digest(folder: Path) -> str:
    """Hash of what a model computes: its config and weights, read on several threads.

    Raises:
        InputError: a file cannot be read.
    """
    paths = [folder / "config.json", *weight_files(folder)]
    try:
        with ThreadPoolExecutor(4) as pool:
            digests = list(pool.map(file_digest, paths))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read, {first_line(error)}; mend the model folder") from None
    return _digest(*(f"{path.name} {digest}".encode() for path, digest in zip(paths, digests, strict=True)))


def _digest(*parts: bytes) -> str:
    """Name some bytes; where one part ends and the next begins counts."""
    whole = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(whole).hexdigest()[:_CHECKSUM_CHARS]


def _refused(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: answers cannot be kept, {first_line(error)}; free space or mend its rights")
