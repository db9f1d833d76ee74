"""Standard normals of many seeds, each a stream of its own, drawn in several threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import main_thread
from typing import Any

import numpy as np
import torch

Counter = tuple[int, int, int, int]  # the words of Philox's counter, each in [0, 2^64)

# Numbers that a thread draws at a time: about 2 ms, against 0.1 ms to start one.
PORTION = 2**17


def normals(seeds: Sequence[int], counters: Sequence[Counter], size: int) -> list[np.ndarray]:
    """For each counter `[len(seeds), size]` float32: each row has the first standard normals of
    Philox keyed by its seed, at this counter.

    Where there are many, as many threads as torch computes in share the work, and then end.
    """
    draws = [np.empty((len(seeds), size), dtype=np.float32) for _ in counters]
    rows = max(1, PORTION // size)
    portions = [
        (out[i : i + rows], seeds[i : i + rows], counter)
        for out, counter in zip(draws, counters, strict=True)
        for i in range(0, len(seeds), rows)
    ]
    threads = min(torch.get_num_threads(), len(draws) * len(seeds) * size // PORTION)
    # A pool does not start once the main thread has ended, but other threads may still sample.
    if threads < 2 or not main_thread().is_alive():
        _fill(*portions)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_fill, portions))
    return draws


def _fill(*portions: tuple[np.ndarray, Sequence[int], Counter]) -> None:
    """One generator is set to one seed and counter after the other: a new one for each would take
    half as long as its numbers."""
    bits = np.random.Philox(key=0, counter=0)
    generator = np.random.Generator(bits)
    state: Any = {**bits.state, "buffer": [0, 0, 0, 0]}  # from a list it is read faster
    for rows, seeds, counter in portions:
        for row, seed in zip(rows, seeds, strict=True):
            state["state"] = {"counter": counter, "key": (seed, 0)}
            bits.state = state
            generator.standard_normal(out=row, dtype=np.float32)
