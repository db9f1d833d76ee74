"""Let the C library keep memory for the next layer, instead of asking the system for it again."""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT, OF_OLD = 2**30, 2**25  # bytes; old versions of glibc allow no larger block


def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed blocks of up to `KEPT` bytes for reuse (mallopt(3)).

    By default it returns blocks of more than 32 MiB to the system at once, and what is free at the
    top of the heap; on a CPU, where every layer's result is such a block, fetching fresh pages then
    takes up to half of the time (`tools/bench_memory.py`). Nothing is done for another C library,
    or if the user has set malloc up through the environment.
    """
    own = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    if platform.libc_ver()[0] != "glibc" or own:
        return
    libc = ctypes.CDLL(None)
    if libc.mallopt(M_MMAP_THRESHOLD, KEPT) or libc.mallopt(M_MMAP_THRESHOLD, OF_OLD):
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
