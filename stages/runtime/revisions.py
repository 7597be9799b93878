"""Tables of another git revision or experiment, from DVC's cache or remote, without checking anything out."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import polars as pl
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import InputError
from stages.common.files import first_line

WORKSPACE = "workspace"


class Revision:
    """One revision: what its files held."""

    def __init__(self, name: str, sha: str | None, files: Any) -> None:  # noqa: ANN401 - DVC's file system
        self.name, self.sha, self._files = name, sha, files

    def table(self, path: str, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """Columns of a parquet table.

        Raises:
            InputError: the revision has no such file, its content is nowhere to be had, or it has other columns.
        """
        try:
            whole = pl.read_parquet(io.BytesIO(self._read(path)))
            return whole.select(pl.col(name).cast(dtype) for name, dtype in columns.items())
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"{path} of {self.name}: must be a table of {', '.join(columns)}, got another ({first_line(error)}); "
                "compare revisions that have it"
            ) from None

    def params(self) -> dict[str, Any]:
        """Its params.yaml."""
        try:
            found = YAML(typ="safe", pure=True).load(self._read("params.yaml").decode())
        except (YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"params.yaml of {self.name}: not YAML ({first_line(error)}); compare another") from None
        return dict(found or {})

    def _read(self, path: str) -> bytes:
        try:
            with self._files.open(path, "rb") as file:
                return bytes(file.read())
        except FileNotFoundError:
            raise InputError(
                f"{path}: {self.name} has no such file; name a revision in which the pipeline has run"
            ) from None
        except Exception as error:  # a remote fails in as many ways as there are remotes
            raise self._not_there(path, error) from None

    def _not_there(self, path: str, error: Exception) -> InputError:
        return InputError(
            f"{path}: its content at {self.name} is neither in DVC's cache nor on a remote ({first_line(error)}); "
            "`dvc push` it where that revision has run, or run it here (`git checkout` and `dvc repro`)"
        )


@contextmanager
def revisions(*names: str) -> Iterator[list[Revision]]:
    """Open revisions of the repository around the working directory, by what git or `dvc exp` calls them.

    Raises:
        InputError: there is no repository, or no such revision or experiment.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import resolve_rev

    try:
        repo = Repo()
    except DvcException as error:
        raise InputError(f".: not in a DVC repository ({first_line(error)}); go to the project's top folder") from None
    found = []
    with repo:
        for name in names:
            try:
                sha = None if name == WORKSPACE else resolve_rev(repo.scm, name)
            except Exception as error:  # scmrepo and DVC each have their own
                raise InputError(
                    f"{name}: no revision or experiment of that name ({first_line(error)}); `git log` and `dvc exp "
                    f"show` list them, and {WORKSPACE!r} is the files as they are"
                ) from None
            found.append(Revision(name, sha, DVCFileSystem(url=repo.root_dir, rev=sha)))
        yield found
