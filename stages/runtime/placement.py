"""Where a model's weights go: one GPU if it has room for them, else layer by layer over all of them, else the CPU."""

import gc
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.runtime.model import weight_files

WEIGHT_SHARE = 0.7  # of a GPU's free memory; the rest is for what answers in progress need


def place(folder: Path, *, dtype: str) -> dict[str, Any]:
    """What `from_pretrained` is told on this machine, to load a model folder's weights as a torch dtype.

    Raises:
        InputError: the GPUs together are too small.
    """
    import torch

    gc.collect()  # a model before this one: hooks may hold it in cycles
    torch.cuda.empty_cache()
    free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    return placement(n_weights(folder) * getattr(torch, dtype).itemsize, free, name=str(folder))


def n_weights(folder: Path) -> int:
    """Numbers in the safetensors files of a model folder that has been checked."""
    total = 0
    for path in weight_files(folder):
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        total += sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    return total


def placement(n_bytes: int, free: Sequence[int], *, name: str) -> dict[str, Any]:
    """What `from_pretrained` is told.

    Args:
        n_bytes: of the weights.
        free: free bytes of each GPU.
        name: of the model, for the error.

    Raises:
        InputError: the GPUs together are too small.

    >>> placement(10, [8, 20], name="m")
    {'device_map': {'': 1}}
    >>> placement(18, [16, 20], name="m")
    {'device_map': 'auto', 'max_memory': {0: 11, 1: 14}}
    """
    if not free:
        return {}
    room = [int(WEIGHT_SHARE * n) for n in free]
    if n_bytes <= max(room):
        return {"device_map": {"": room.index(max(room))}}
    if n_bytes <= sum(room):
        return {"device_map": "auto", "max_memory": dict(enumerate(room))}
    raise InputError(
        f"{name}: its weights take {n_bytes / 2**30:.1f} GiB and {WEIGHT_SHARE:.0%} of the free GPU memory is "
        f"{sum(room) / 2**30:.1f} GiB; set precision to bf16, free memory, or take more GPUs"
    )
