"""Tables, JSON and text: read with a check, written whole or not at all."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.errors import InputError

# Kept across runs and outside every DVC out: git- and dvc-ignored. DVC sets DVC_ROOT for the commands it starts.
CACHE = Path(os.environ.get("DVC_ROOT", ".")) / ".cache"

EXPERIMENTS = (".dvc", "tmp", "exps")  # where DVC puts the workspaces of `dvc exp run --temp` and `--queue`

ROW_GROUP_ROWS = 2_000  # what a reader holds at the least, several times on each of its threads


def read_table(path: Path, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Read a parquet table whose columns and dtypes are those of `schema`.

    Raises:
        InputError: the file is missing, damaged or of another form.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; `dvc repro` makes it")
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: not readable parquet ({first_line(error)}); `dvc repro` makes it anew") from None
    if dict(frame.schema) != dict(schema):
        wrong = sorted(set(frame.schema.items()) ^ set(schema.items()), key=str)[0]
        raise InputError(f"{path}: not the columns of stages/schema.py, first at {wrong[0]!r}; `dvc repro` mends it")
    return frame


def write_table(path: Path, frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> None:
    """Write a parquet table atomically, its columns in the order of `schema`.

    The caller has sorted the rows: row order is part of the artifact.
    """
    table = frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
    with whole(path) as partial:
        table.write_parquet(partial, compression="zstd", statistics=False, row_group_size=ROW_GROUP_ROWS)


def shared_cache() -> Path:
    """CACHE of the project; a temporary experiment's workspace, which DVC removes, shares that of its project."""
    cache = CACHE.absolute()
    for folder in cache.parents:
        if folder.parts[-3:] == EXPERIMENTS:
            return folder.parents[2] / cache.name
    return cache


def named_folder(name: str) -> Path:
    """A folder that a person named; a relative one stands in the project.

    A temporary experiment's workspace has only what git tracks: what is not there is looked for in its project.

    Raises:
        RuntimeError: `~` stands for nobody.
    """
    folder = Path(name).expanduser()
    beside = shared_cache().parent / folder
    return beside if not folder.exists() and beside.exists() else folder


def empty_table(schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A table of `schema` without rows."""
    return pl.DataFrame(schema=dict(schema))


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is any tree of plain values
    """Read JSON.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; `dvc repro` makes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({first_line(error)}); `dvc repro` makes it anew") from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically; floats are rounded to 6 digits so that hashes are stable, and are finite."""
    text = json.dumps(_rounded(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_csv(path: Path, frame: pl.DataFrame) -> None:
    """Write CSV atomically, floats with 6 digits."""
    with whole(path) as partial:
        frame.write_csv(partial, float_precision=6)


def read_text(path: Path) -> str:
    """Read UTF-8 text.

    Raises:
        InputError: the file is missing or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text, {first_line(error)}; write it, or mend it") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def first_line(error: object) -> str:
    """The first line of an error's text, short enough for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what cannot be written within, for want of space or rights.

    polars reports a full disk as an error of its own, numpy one without a name.

    Raises:
        InputError: in place of theirs.
    """
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        if not isinstance(error, OSError) and "os error" not in str(error):
            raise
        raise InputError(f"{path}: cannot be written, {first_line(error)}; free space or mend its rights") from error


class whole:  # noqa: N801 - reads as a statement: `with whole(path) as partial`
    """A path to write to; on success it becomes `path`, on failure nothing is left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if kind is None:
            try:
                self.partial.replace(self.path)
                return
            except OSError as fault:
                error = fault
        with contextlib.suppress(OSError):
            self.partial.unlink()
        if isinstance(error, OSError):
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> InputError:
        return InputError(f"{self.path}: cannot be written, {first_line(error)}; free space or mend its rights")


def _rounded(value: Any) -> Any:  # noqa: ANN401 - JSON is any tree of plain values
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        assert math.isfinite(value), "a metric of nothing is absent, not NaN"
        return round(value, 6)
    return value
