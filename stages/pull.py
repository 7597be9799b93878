"""pull: bring the raw files of one source, or write the miniature's dump of it.

Reads `sources.<source>` of params.yaml and the folder that its origin names.
Writes data/pull/<source>/ with the files that the source's format knows, in the folders they had.

Origin "miniature" is the invented world of stages/core/world.py, told in the source's real file format (ours; LIMA
s2 has only real sources). A folder is copied, never linked: DVC protects and shares what lies in data/, and a link
would do that to the origin too. DVC does not watch the origin: after a change there, `dvc repro --force pull@<source>`.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath

from pydantic import Field

from stages.core.dumps import DUMPS
from stages.core.formats import FILES, MINIATURE, Format, Miniature, Source, is_raw_file
from stages.core.section import Section
from stages.core.world import make_world
from stages.errors import InputError, ParamsError
from stages.runtime.files import first_line
from stages.runtime.main import run_stage
from stages.runtime.params import load_params
from stages.runtime.progress import progress

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Params(Section):
    """Section `pull`."""

    max_file_bytes: int = Field(ge=1)  # bytes; a larger file in an origin is refused


def run(format: Format, miniature: Miniature) -> dict[str, bytes]:  # noqa: A002 - the word of params.yaml
    """Write the miniature's dump of one format.

    Returns:
        Content by file name, relative to the source's folder.

    Raises:
        ParamsError: the world is too small to fill a dump.
    """
    try:
        return DUMPS[format](make_world(seed=miniature.seed, n_people=miniature.n_people))
    except ValueError as error:
        raise ParamsError(f"params.yaml: miniature.{first_line(error)}; raise it there") from None


def raw_files(origin: Path, format: Format, params: Params) -> list[PurePath]:  # noqa: A002
    """List the files of a folder that a format knows, relative to it and sorted.

    Raises:
        InputError: the folder is missing or holds none, or a file is too large, irregular or behind a linked folder.
    """
    if not origin.is_dir():
        what = "a file" if origin.exists() else "nothing"
        raise InputError(
            f"{origin}: the origin of a source must be a folder, got {what}; correct `origin` in params.yaml"
        )
    found: list[PurePath] = []
    for folder, inner, names in os.walk(origin, onerror=_refuse):
        linked = [name for name in inner if (Path(folder) / name).is_symlink()]
        if linked:
            raise InputError(
                f"{Path(folder) / linked[0]}: folders of an origin must not be links, got one; give its target"
            )
        found += [Path(folder, name).relative_to(origin) for name in names if _known(name, format)]
    if not found:
        raise InputError(
            f"{origin}: format {format} needs {' or '.join(FILES[format])}, got no such file; "
            "correct `origin` or `format` in params.yaml"
        )
    for name in found:
        _check(origin / name, params.max_file_bytes)
    return sorted(found)


def main(source: str) -> None:
    """Bring one source."""
    params = load_params("pull", Params)
    upstream = load_params(f"sources.{source}", Source)
    target = Path("data/pull") / source
    if upstream.origin == MINIATURE:
        _write(target, run(upstream.format, load_params("miniature", Miniature)))
        return
    if _SCHEME.match(upstream.origin):
        raise ParamsError(
            f'params.yaml: sources.{source}.origin: must be "{MINIATURE}" or a folder, got {upstream.origin!r}; '
            "download the files and give their folder"
        )
    try:
        origin = Path(upstream.origin).expanduser()
        names = raw_files(origin, upstream.format, params)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{upstream.origin}: cannot be read, {first_line(error)}; correct `origin` in params.yaml or mend rights"
        ) from None
    _copy(target, origin, names)


def _known(name: str, format: Format) -> bool:  # noqa: A002
    return not name.startswith(".") and is_raw_file(PurePath(name), format)


def _check(path: Path, max_file_bytes: int) -> None:
    if not path.is_file():
        raise InputError(f"{path}: must be a regular file, got something else; remove it or mend the link")
    size = path.stat().st_size
    if size > max_file_bytes:
        raise InputError(
            f"{path}: must have at most {max_file_bytes:,} bytes, got {size:,}; raise `pull.max_file_bytes`"
        )


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read, {error.strerror}; mend its rights")


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    with _WholeFolder(target) as partial:
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _copy(target: Path, origin: Path, names: list[PurePath]) -> None:
    with _WholeFolder(target) as partial:
        for name in progress(names, desc="pull", total=len(names), unit="file"):
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin / name, path)


class _WholeFolder:
    """A folder to fill; on success it becomes `target`, on failure nothing is left."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.partial = target.with_name(f".{target.name}.partial")

    def __enter__(self) -> Path:
        shutil.rmtree(self.partial, ignore_errors=True)
        try:
            self.partial.mkdir(parents=True)
        except OSError as error:
            raise self._refused(error) from error
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if kind is None:
            try:
                if self.target.exists():
                    shutil.rmtree(self.target)
                self.partial.rename(self.target)
                return
            except OSError as fault:
                error = fault
        shutil.rmtree(self.partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> InputError:
        return InputError(f"{self.target}: cannot be filled, {first_line(error)}; free space or mend rights")


if __name__ == "__main__":
    run_stage(main, key="source")
