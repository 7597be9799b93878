"""How threads wait, and what becomes of the memory they free. Importing this before torch is what counts.

OpenMP's threads spin by default while they wait for work. Alone on the machine that is fastest; beside anything else it
is a collapse. A short spin keeps most of the one and avoids the other. And glibc gives the memory of every large tensor
back to the kernel, to fetch it anew, page by page, for the next (figures of both in docs/decisions.md). A user's own
settings win.
"""

import ctypes
import os
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Of malloc.h; the values are the largest that glibc takes. One arena, for those of threads are too small for tensors.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = (-3, 2**25), (-1, 2**31 - 1), (-8, 1)

if not any(name.startswith("MALLOC_") for name in os.environ):
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX) if mallopt else ():
        mallopt(*option)
