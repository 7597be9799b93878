"""Model folders by name: a folder of this machine, or a model of the hub at a commit, fetched once and kept.

huggingface_hub tells what the hub has, and what is wrong. The bytes come through runtime.transfers: the library
(2.4.0) throws away what a broken or killed download brought, and compares lengths alone. Each file is held against what
the hub publishes of it: the sha256 of a file in large-file storage, the name of its git object for any other.

    .cache/downloads/                   the files, by checksum
    .cache/hub/<org>--<name>@<commit>.json   what the hub published of that commit, so that a rerun asks for nothing
    .cache/hub/<org>--<name>@<commit>/  links to the files: a model folder

All but the links is shared by the temporary experiments of a project.

Models are read where they lie: HF_ENDPOINT names a mirror, HF_TOKEN opens what is gated or private, HF_HUB_OFFLINE
forbids to ask.
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from stages.common import files
from stages.common.errors import InputError, ParamsError
from stages.common.files import first_line, named_folder, shared_cache, write_text
from stages.core import transfer
from stages.core.catalog import Known
from stages.runtime.model import INDEX_FILE, WEIGHTS_FILE, check_architecture, shards
from stages.runtime.parallel import in_order
from stages.runtime.progress import bar, progress
from stages.runtime.transfers.downloads import Downloads, Job
from stages.runtime.transfers.kept_files import KeptFiles

T = TypeVar("T")

# What a model needs beside its weights, as far as a model has it. No code.
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_CONCURRENCY = 4  # files at once
_TIMEOUT_S = 60.0
_MAX_ATTEMPTS = 8  # in a row that bring nothing new
_MAX_FILE_BYTES = 10**12


class ModelFolder(NamedTuple):
    """Where a model lies."""

    path: Path
    is_kept: bool  # whether it is ours, under .cache, so that its files may be shared by links


def find_model(name: str, revision: str | None, *, section: str) -> ModelFolder:
    """Give the folder of a model, fetched where the name is a hub id.

    Args:
        name: a folder, or a hub id such as org/name.
        revision: commit of a hub id, 40 hex digits.
        section: of params.yaml, which has both as `model` and `revision`; for errors.

    Raises:
        ParamsError: the revision of a hub id is no commit.
        InputError: the hub does not give the model, or it is none that can be used.
    """
    folder = named_folder(name)
    if folder.is_dir() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        return ModelFolder(folder, is_kept=False)
    if revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        raise ParamsError(
            f"params.yaml: {section}.revision: must be a commit of {name} (40 hex digits), got {revision!r}; "
            "copy it from the model's history on its hub page"
        )
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name, re.ASCII):
        raise ParamsError(f"params.yaml: {section}.model: must be a folder or a hub id such as org/name, got {name!r}")
    return ModelFolder(_Fetching(name, revision, section).run(), is_kept=True)


class _Fetching:
    """One model on its way."""

    def __init__(self, hub_id: str, revision: str, section: str) -> None:
        from huggingface_hub import get_token

        self.hub_id, self.revision, self.section = hub_id, revision, section
        self.kept = KeptFiles(shared_cache() / "downloads")
        name = f"{hub_id.replace('/', '--')}@{revision}"
        self.folder = files.CACHE / "hub" / name  # links, made anew by each run: not to be shared
        self.listing = shared_cache() / "hub" / f"{name}.json"
        self.token = get_token()

    def run(self) -> Path:
        listed = self._listed()
        weights = [name for name in (WEIGHTS_FILE, INDEX_FILE) if name in listed][:1]
        if not weights:
            other = sorted(name for name in listed if name.endswith((".safetensors", ".bin", ".pth", ".gguf")))
            raise InputError(
                f"{self.hub_id}: no {WEIGHTS_FILE} at that commit, {f'only {other[0]}' if other else 'no weights'}; "
                f"take a commit or a model that has safetensors, or convert it and give its folder as "
                f"{self.section}.model"
            )
        if "config.json" not in listed:
            raise InputError(f"{self.hub_id}: no config.json at that commit; it is no model of transformers")
        small = [name for name in (*SMALL_FILES, INDEX_FILE) if name in listed]
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._bring({name: listed[name] for name in small})
        check_architecture(self.folder)  # before gigabytes
        if weights == [INDEX_FILE]:
            weights = shards(self.folder / INDEX_FILE)
            if absent := [name for name in weights if name not in listed]:
                raise InputError(f"{self.hub_id}: lacks {absent[0]}, which its {INDEX_FILE} names; take another commit")
        else:
            (self.folder / INDEX_FILE).unlink(missing_ok=True)  # of the same weights in parts
        self._bring({name: listed[name] for name in weights})
        return self.folder

    def _listed(self) -> dict[str, Known]:
        """What the hub publishes of the commit's files, asked once."""
        try:
            kept = json.loads(self.listing.read_text(encoding="utf-8"))
            return {name: Known("the hub", int(n_bytes), dict(sums)) for name, (n_bytes, sums) in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # not asked yet, or damaged
        from huggingface_hub import HfApi

        info = self._asked(
            lambda: HfApi(token=self.token).model_info(
                self.hub_id, revision=self.revision, files_metadata=True, timeout=_TIMEOUT_S
            )
        )
        if info.id != self.hub_id:
            raise InputError(
                f"{self.hub_id}: renamed, the hub has it as {first_line(info.id)}; write that as {self.section}.model"
            )
        if info.sha != self.revision:
            raise InputError(
                f"{self.hub_id}: the hub gives commit {info.sha} for {self.revision}; correct {self.section}.revision "
                "or HF_ENDPOINT"
            )
        found: dict[str, Known] = {}
        for file in info.siblings or ():
            sums = {"sha256": file.lfs.sha256} if file.lfs else {"git_blob": file.blob_id}
            digits = next(iter(sums.values()))
            if file.size is None or not re.fullmatch("[0-9a-f]{40}(?:[0-9a-f]{24})?", str(digits)):
                raise InputError(
                    f"{self.hub_id}: the hub publishes no checksum of {file.rfilename}; use another HF_ENDPOINT"
                )
            found[file.rfilename] = Known("the hub", int(file.size), {name: str(sum_) for name, sum_ in sums.items()})
        write_text(self.listing, json.dumps({name: [known.n_bytes, known.sums] for name, known in found.items()}))
        return found

    def _bring(self, wanted: dict[str, Known]) -> None:
        """Link files into the folder, those first downloaded that are not kept."""
        from huggingface_hub import HfApi, constants

        addresses = {name: f"{constants.ENDPOINT}/{self.hub_id}/resolve/{self.revision}/{name}" for name in wanted}
        sums = in_order(lambda name: self._sound(addresses[name], wanted[name]), wanted)  # gigabytes are hashed
        checked = progress(sums, desc="look for kept files", total=len(wanted), unit="file")
        found = {name: sha256 for name, sha256 in zip(wanted, checked, strict=True) if sha256}
        todo = [name for name in wanted if name not in found]
        if todo:
            if constants.is_offline_mode():
                raise self._offline()
            self._asked(lambda: HfApi(token=self.token).auth_check(self.hub_id))  # a gated model is listed to anybody
            self._check_disk(sum(wanted[name].n_bytes or 0 for name in todo))
            remedy = "it was damaged on its way, or HF_ENDPOINT names a bad mirror: run again, or correct that"
            jobs = [Job(name, addresses[name], wanted[name], remedy, is_pinned=False) for name in todo]
            found |= dict(zip(todo, self._downloaded(jobs), strict=True))
        for name, sha256 in found.items():
            self.kept.give(sha256, self.folder / name)

    def _sound(self, address: str, known: Known) -> str | None:
        """The checksum under which a file is kept, if it is, and whole."""
        seen = self.kept.seen(address)
        sha256 = known.sums.get("sha256", seen.sha256 if seen else None)  # other models may have brought it
        return sha256 if sha256 and self.kept.sound(sha256) else None

    def _downloaded(self, jobs: list[Job]) -> list[str]:
        downloads = Downloads(
            self.kept,
            concurrency=_CONCURRENCY,
            timeout_s=_TIMEOUT_S,
            max_attempts=_MAX_ATTEMPTS,
            max_file_bytes=_MAX_FILE_BYTES,
            token=self.token,
        )
        total = sum(job.known.n_bytes or 0 for job in jobs)
        with bar(desc=self.hub_id, total=total, unit="B", unit_scale=True) as shown:
            try:
                return downloads.side_by_side(jobs, downloads.fetch, advance=shown.update)
            except InputError as error:
                raise InputError(str(error).replace("`origin`", "HF_ENDPOINT")) from None

    def _check_disk(self, n_bytes: int) -> None:
        self.kept.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.kept.root).free
        if n_bytes > free:
            raise InputError(
                f"{self.kept.root}: must have {n_bytes:,} bytes free for {self.hub_id}, got {free:,}; free space, or "
                "put .cache on a larger disk by a link"
            )

    def _asked(self, ask: Callable[[], T]) -> T:
        """Ask the hub, again after a fault that may pass.

        Raises:
            InputError: what is wrong, in one sentence.
        """
        from huggingface_hub import constants
        from huggingface_hub.errors import (
            DisabledRepoError,
            GatedRepoError,
            HfHubHTTPError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                return ask()
            except GatedRepoError:
                has = "ask for access with the account of HF_TOKEN" if self.token else "set HF_TOKEN"
                raise InputError(f"{self.hub_id}: gated; accept its licence on its hub page and {has}") from None
            except RepositoryNotFoundError:
                raise self._unknown() from None
            except RevisionNotFoundError:
                raise InputError(
                    f"{self.hub_id}: no commit {self.revision}; correct {self.section}.revision, the model's history "
                    "on its hub page has them"
                ) from None
            except DisabledRepoError:
                raise InputError(f"{self.hub_id}: disabled by the hub; choose another model") from None
            except OfflineModeIsEnabled:
                raise self._offline() from None
            except Exception as error:  # the network fails in the words of several libraries
                status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
                if status == 401 and self.token:
                    raise InputError(f"{constants.ENDPOINT}: does not accept HF_TOKEN; make a new one") from None
                if status == 401:
                    raise self._unknown() from None
                if attempt == _MAX_ATTEMPTS or (status and status < 500 and status not in (408, 429)):
                    why = f"the hub answers {status}" if status else first_line(error)
                    raise InputError(
                        f"{self.hub_id}: cannot be asked for at {constants.ENDPOINT}, {why}; try again, what came is "
                        "kept"
                    ) from None
                time.sleep(transfer.pause_s(attempt))
        raise AssertionError

    def _unknown(self) -> InputError:
        return InputError(
            f"{self.hub_id}: no such model on the hub, or a private one; correct {self.section}.model, or set HF_TOKEN"
        )

    def _offline(self) -> InputError:
        return InputError(
            f"{self.hub_id}: not all of it is kept here, and HF_HUB_OFFLINE forbids to fetch it; unset that, or give a "
            f"folder as {self.section}.model"
        )
