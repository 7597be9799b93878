"""Model folders: check, load, save. Safetensors only, no remote code, nothing fetched."""

import json
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import stages.runtime.threads  # noqa: F401 - before torch
from stages.common.errors import InputError
from stages.common.files import first_line

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"  # of weights in several files


def check_model_folder(folder: Path) -> None:
    """See that a folder holds a model that can be loaded: a config, and whole safetensors files.

    Raises:
        InputError: naming what is missing or damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder; correct the path")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json in it; a model folder in the transformers layout is needed")
    for path in weight_files(folder):
        _check_safetensors(path)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights, as transformers chooses them: one, or those that an index names.

    Raises:
        InputError: there are none, or one is missing.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        found = [folder / name for name in shards(folder / INDEX_FILE)]
        if absent := [path for path in found if not path.is_file()]:
            raise InputError(f"{absent[0]}: no such file, {INDEX_FILE} names it; fetch it")
        return found
    other = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth", ".gguf"))
    hint = f"only {other[0]}" if other else "no weights"
    raise InputError(f"{folder}: no {WEIGHTS_FILE} in it, {hint}; convert the weights with transformers first")


def shards(index: Path) -> list[str]:
    """Names of the files, all in the index's own folder, that an index of weights names.

    Raises:
        InputError: it is no index, or names something else.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: not an index of weights ({first_line(error)}); fetch it again") from None
    if not names or not all(re.fullmatch(r"[\w-][\w.-]*\.safetensors", str(name), re.ASCII) for name in names):
        raise InputError(f"{index}: must name *.safetensors files beside it, got {names[:1]!r}; fetch it again")
    return names


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's config.json.

    Raises:
        InputError: it is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({first_line(error)}); fetch it again") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: must be a JSON object, got {type(config).__name__}; fetch it again")
    return config


def check_architecture(folder: Path) -> None:
    """See that transformers has the model's architecture itself.

    Raises:
        InputError: it has not, or the model would need code of its own, which is never run.
    """
    config = read_config(folder)
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a config can be wrong in many ways
        kind = first_line(config.get("model_type", "none"))
        if "auto_map" in config:
            raise InputError(
                f"{folder}: model type {kind!r} needs code from its own folder, which is never run; choose a model of "
                "an architecture that transformers has"
            ) from None
        raise InputError(
            f"{folder}: transformers cannot read the config of model type {kind!r}, {first_line(error)}; choose "
            "another model, or update transformers"
        ) from None


def load_model(folder: Path, *, dtype: str = "float32", where: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
    """Load a causal LM in eval mode onto the GPU if there is one.

    Args:
        folder: a model folder in the transformers layout.
        dtype: name of a torch dtype for the weights.
        where: arguments of `from_pretrained` that place the weights elsewhere.

    Raises:
        InputError: the folder cannot be loaded.
    """
    check_model_folder(folder)
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **(where or {}),
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{folder}: transformers cannot load it, {first_line(error)}; mend or replace it") from None
    return (model if where else model.to("cuda" if torch.cuda.is_available() else "cpu")).eval()


def save_model(model: Any, folder: Path, *, weights: dict[str, Any] | None = None) -> None:  # noqa: ANN401
    """Save config, generation config and safetensors weights into `folder`, quietly.

    Args:
        model: a transformers model.
        folder: is made.
        weights: what to save in place of the model's own weights, by name; the config then names their dtype.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # saving imports DeepSpeed, which warns otherwise
    disable_progress_bar()
    model.save_pretrained(folder, state_dict=weights)
    if weights is not None:
        config = json.loads((folder / "config.json").read_text())
        config["dtype"] = str(next(iter(weights.values())).dtype).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes 0600, which a shared cache cannot read


def context_tokens(model: Any) -> int:  # noqa: ANN401
    """Positions that the model was made for."""
    return int(model.config.get_text_config().max_position_embeddings)


def _check_safetensors(path: Path) -> None:
    """Compare the file's size with what its header promises: a truncated download is found before it is loaded."""
    try:
        with path.open("rb") as file:
            (n_header,) = struct.unpack("<Q", file.read(8))
            if n_header > 100_000_000:
                raise ValueError("its header is too large")
            header = json.loads(file.read(n_header))
        n_data = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a safetensors file, {first_line(error)}; fetch it again") from None
    if path.stat().st_size != 8 + n_header + n_data:
        raise InputError(f"{path}: truncated, {path.stat().st_size} bytes of {8 + n_header + n_data}; fetch it again")
