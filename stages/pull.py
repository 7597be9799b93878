"""pull: bring the raw files of one source, or write the miniature's dump of it.

Reads `sources.<source>` of params.yaml, what its origin names, data/catalog/files/<format>.csv and, where they are,
the pins data/pins/<source>.csv. Writes data/pull/<source>/ with the files that the source's format knows, in the
folders they had; and those pins.

An origin is
    miniature           the invented world of stages/core/world.py, told in the source's real file format
    a folder            of this machine, absolute or relative to the project. It is copied, never linked: DVC protects
                        and shares what lies in data/, and a link would do that to the origin too. DVC does not watch
                        it: after a change there, `dvc repro --force pull@<source>`
    https:// or s3://   the address under which the files of the catalog lie, upstream or on a mirror. They are
                        downloaded once, to .cache/downloads/, several at a time, and gone on with after a break or a
                        kill. Keys come from the AWS chain or ~/.netrc, never from params.yaml
`only` narrows it to some files: `only: ["*.stackexchange.com.7z", "!math*"]`. What it names in full is taken from an
address also if the catalog lacks it.

The first download pins each file: bytes and sha256 go to data/pins/<source>.csv, to be committed. Later downloads, by
whomever and from whichever mirror, must give the same or fail and say so. To take what upstream has now, remove lines
there and run `dvc repro --force pull@<source>`. A pin is no dependency in DVC: it can stop a run, but not change what
it gives. Checksums that upstream or a mirror publishes (SHA256SUMS, archive.org's <item>_files.xml) are compared too.

LIMA s2.1 and s2.2 name the sources. Which files they are, where they are had today and what a person must fetch by
hand stands in data/catalog/README.md.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from pydantic import Field

from stages.common.errors import InputError, ParamsError
from stages.common.files import first_line, named_folder, shared_cache, write_text
from stages.common.main import run_stage
from stages.common.params import load_params
from stages.common.section import Section
from stages.core.catalog import Listed, idle_patterns, is_safe, read_catalog, read_pins, selected, written_pins
from stages.core.dumps import DUMPS
from stages.core.formats import FILES, MINIATURE, Format, Miniature, Source, is_raw_file
from stages.core.origins import is_address
from stages.core.world import make_world
from stages.runtime.addresses import Asked, bring
from stages.runtime.progress import progress
from stages.runtime.transfers.downloads import Downloads
from stages.runtime.transfers.kept_files import KeptFiles

CATALOG = Path("data/catalog/files")
PINS = Path("data/pins")


class Params(Section):
    """Section `pull`."""

    max_file_bytes: int = Field(ge=1)  # bytes; a larger file in an origin is refused
    max_total_bytes: int = Field(
        ge=1
    )  # bytes; more under an address is refused: before the first is fetched, if lengths are known
    concurrency: int = Field(ge=1, le=64)  # files downloaded at once
    timeout_s: float = Field(gt=0)  # a connection that stands still for so long is broken off and made anew
    max_attempts: int = Field(ge=1, le=100)  # in a row that bring nothing new of a file


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


def main(source: str) -> None:
    """Bring one source."""
    params = load_params("pull", Params)
    upstream = load_params(f"sources.{source}", Source)
    target = Path("data/pull") / source
    if upstream.origin == MINIATURE:
        if upstream.only is not None:
            raise ParamsError(f"params.yaml: sources.{source}.only: the miniature is taken whole; remove it")
        _write(target, run(upstream.format, load_params("miniature", Miniature)))
    elif is_address(upstream.origin):
        _download(source, upstream, params, target)
    else:
        _copy(source, upstream, params, target)


# --- a folder ----------------------------------------------------------------------------------------------------


def raw_files(
    origin: Path,
    format: Format,  # noqa: A002
    params: Params,
    only: Sequence[str] | None = None,
    *,
    source: str = "*",
) -> list[PurePath]:
    """List the files of a folder that a format knows and `only` wants, relative to it and sorted.

    Args:
        origin: the folder.
        format: which files are raw ones.
        params: how large they may be.
        only: patterns of names; None: all.
        source: key of the source, for errors.

    Raises:
        InputError: the folder is missing or holds none, or a file is too large, irregular or behind a linked folder.
    """
    if not origin.is_dir():
        what = "a file" if origin.exists() else "nothing"
        raise InputError(
            f"{origin}: the origin of a source must be a folder, got {what}; correct `origin` in params.yaml"
            f"{_by_hand(format, to=str(origin))}"
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
            f"correct `origin` or `format` in params.yaml{_by_hand(format, to=str(origin))}"
        )
    wanted = set(_wanted([name.as_posix() for name in found], only, where=str(origin), source=source))
    kept = [name for name in found if name.as_posix() in wanted]
    for name in kept:
        _check(origin / name, params.max_file_bytes)
    return sorted(kept)


def _copy(source: str, upstream: Source, params: Params, target: Path) -> None:
    try:
        origin = named_folder(upstream.origin)
        names = raw_files(origin, upstream.format, params, upstream.only, source=source)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{upstream.origin}: cannot be read, {first_line(error)}; correct `origin` in params.yaml or mend rights"
        ) from None
    with _WholeFolder(target) as partial:
        for name in progress(names, desc="pull", total=len(names), unit="file"):
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin / name, path)


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


# --- an address --------------------------------------------------------------------------------------------------


def _download(source: str, upstream: Source, params: Params, target: Path) -> None:
    wanted = _listed(source, upstream)
    pins_path = PINS / f"{source}.csv"
    pins = read_pins(pins_path.read_text(encoding="utf-8"), where=str(pins_path)) if pins_path.is_file() else {}
    downloads = Downloads(
        KeptFiles(shared_cache() / "downloads"),
        concurrency=params.concurrency,
        timeout_s=params.timeout_s,
        max_attempts=params.max_attempts,
        max_file_bytes=params.max_file_bytes,
    )
    asked = Asked(source, upstream.origin, wanted, pins, str(pins_path))
    found = bring(
        asked,
        downloads,
        max_total_bytes=params.max_total_bytes,
        by_hand=lambda name: _by_hand(upstream.format, to="there", name=name),
    )
    with _WholeFolder(target) as partial:
        for name, pin in found.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            downloads.kept.give(pin.sha256, partial / name)
    write_text(pins_path, written_pins({**found, **pins}))


def _listed(source: str, upstream: Source) -> list[Listed]:
    """The files of the catalog that `only` wants, and what it names beside them."""
    path = CATALOG / f"{upstream.format}.csv"
    catalog = _catalog(upstream.format)
    names = [file.name for file in catalog]
    more = [name for name in upstream.only or () if not re.search(r"[*?[\]!]", name) and name not in names]
    for name in more:
        if not is_safe(name) or not is_raw_file(PurePath(name), upstream.format):
            known = " or ".join(FILES[upstream.format])
            raise ParamsError(
                f"params.yaml: sources.{source}.only: must name files of format {upstream.format} ({known}), got "
                f"{name!r}; see {path}"
            )
    wanted = set(_wanted([*names, *more], upstream.only, where=str(path), source=source))
    return [file for file in [*catalog, *(Listed(name, "", {}, "", "") for name in more)] if file.name in wanted]


# --- what the catalog says, and the folder to fill ---------------------------------------------------------------


def _catalog(format: Format) -> list[Listed]:  # noqa: A002
    path = CATALOG / f"{format}.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file; it belongs to the project, restore it")
    return read_catalog(path.read_text(encoding="utf-8"), where=str(path))


def _wanted(names: Sequence[str], only: Sequence[str] | None, *, where: str, source: str) -> list[str]:
    idle = idle_patterns(names, only)
    wanted = selected(names, only)
    if idle or not wanted:
        raise ParamsError(
            f"params.yaml: sources.{source}.only: must fit files of {where}, got {idle or list(only or ())!r}, which "
            f"fit none; correct it, there are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        )
    return wanted


def _by_hand(format: Format, *, to: str, name: str | None = None) -> str:  # noqa: A002
    """What a person must fetch, as the end of a sentence; empty if a program can."""
    if not (CATALOG / f"{format}.csv").is_file():
        return ""
    rows = [file for file in _catalog(format) if file.by_hand and not file.unless and name in (None, file.name)]
    told = [f"{file.name}{f' ({file.about})' if file.about else ''} at {file.by_hand}" for file in rows]
    return f": a person fetches {', '.join(told)} and puts it {to if to == 'there' else f'into {to}'}" if told else ""


def _write(target: Path, content: Mapping[str, bytes]) -> None:
    with _WholeFolder(target) as partial:
        for name, data in content.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


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
