"""Standard normals of many seeds, each a stream of its own, drawn and combined in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import main_thread
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")
Counter = tuple[int, int, int, int]  # the words of Philox's counter, each in [0, 2^64)

# Numbers that a thread draws at a time: about 2 ms, against 0.1 ms to start one.
PORTION = 2**17
_SUMS = 16  # numbers that are scaled and added in the time that one is drawn
_CACHED = 2**15  # numbers that are added at a time


def normals(seeds: Sequence[int], counters: Sequence[Counter], size: int) -> list[np.ndarray]:
    """For each counter `[len(seeds), size]` float32: each row has the first standard normals of
    Philox keyed by its seed, at this counter."""
    draws = [np.empty((len(seeds), size), dtype=np.float32) for _ in counters]
    rows = max(1, PORTION // size)
    portions = [
        (out[i : i + rows], seeds[i : i + rows], counter)
        for out, counter in zip(draws, counters, strict=True)
        for i in range(0, len(seeds), rows)
    ]
    in_threads(_fill, portions, len(draws) * len(seeds) * size)
    return draws


def combination(arrays: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """The sum of weight * array, `[rows, size]` each, added in their order in float32."""
    rows, size = arrays[0].shape
    total = np.zeros((rows, size), dtype=np.float32)

    def add(some: slice) -> None:
        part = total[some]
        scaled = np.empty_like(part)
        for array, weight in zip(arrays, weights, strict=True):
            part += np.multiply(array[some], np.float32(weight), out=scaled)

    step = max(1, _CACHED // size)
    parts = [slice(i, i + step) for i in range(0, rows, step)]
    in_threads(add, parts, len(arrays) * total.size // _SUMS)
    return total


def in_threads(work: Callable[[T], None], items: Sequence[T], numbers: int) -> None:
    """work(item) for all items, which take as long as drawing so many numbers. If that is long, as
    many threads as torch computes in share them, and then end."""
    threads = min(torch.get_num_threads(), len(items), numbers // PORTION)
    # A pool does not start once the main thread has ended, but other threads may still sample.
    if threads < 2 or not main_thread().is_alive():
        for item in items:
            work(item)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, items))


def _fill(portion: tuple[np.ndarray, Sequence[int], Counter]) -> None:
    """One generator is set to one seed after the other: a new one for each would take half as long
    as its numbers."""
    rows, seeds, counter = portion
    bits = np.random.Philox(key=0, counter=0)
    generator = np.random.Generator(bits)
    state: Any = {**bits.state, "buffer": [0, 0, 0, 0]}  # from a list it is read faster
    for row, seed in zip(rows, seeds, strict=True):
        state["state"] = {"counter": counter, "key": (seed, 0)}
        bits.state = state
        generator.standard_normal(out=row, dtype=np.float32)
