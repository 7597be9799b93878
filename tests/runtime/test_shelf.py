from __future__ import annotations

import tempfile
from io import BytesIO

import numpy as np
import pytest

from stages.runtime.shelf import Shelf


@pytest.mark.parametrize("in_memory", [True, False])
def test_arrays_come_back_in_any_order(in_memory: bool) -> None:
    with BytesIO() if in_memory else tempfile.TemporaryFile(buffering=0) as file:
        shelf = Shelf(file)  # type: ignore[arg-type]
        parts = [np.arange(i, dtype=np.uint64) * np.uint64(2**60 + 1) for i in (3, 0, 5, 1)]
        shelf.put(parts[:2])
        shelf.put([])
        shelf.put(parts[2:])
        for i in (2, 0, 3, 1, 2):
            assert np.array_equal(shelf.get(i), parts[i])
