"""Adaptive samplers for tests: steps that are halved until Euler's and the midpoint's agree."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch

from kdiff.samplers import REGISTRY, Ask, Option, sampler

LIMIT = Annotated[int, Option("most evaluations", 1)]


def euler(x, d, s, t):
    return (t / s) * x + (1 - t / s) * d


def halving(x, s, end, rows=None):
    """From noise level s to `end`, at most by a factor of 0.6 where they disagree."""
    while s > end:
        t = end
        d = yield Ask(x, s, rows)
        while True:
            middle = (s + t) / 2
            half = yield Ask(euler(x, d, s, middle), middle, rows)
            if float((half - d).abs().max()) * (1 - t / s) < 0.1 + 0.2 * s or t > 0.6 * s:
                break
            t = middle
        x, s = euler(x, half, s, t), t
    return x


def adaptive(x, sigmas, *, limit: LIMIT = 60):
    """The same steps for all samples."""
    return halving(x, sigmas[0], sigmas[-1])


def adaptive_by_sample(x, sigmas, *, limit: LIMIT = 90):
    """Each sample by itself."""
    parts = []
    for i in range(len(x)):
        parts.append((yield from halving(x[i : i + 1], sigmas[0], sigmas[-1], (i,))))
    return torch.cat(parts)


@contextmanager
def registered() -> Iterator[None]:
    """While both are known under their names."""
    known = {"adaptive": (adaptive, 60), "adaptive_by_sample": (adaptive_by_sample, 90)}
    for name, (function, limit) in known.items():
        claims = {"order": 1, "nfe": None, "limit": limit, "linear": False}
        sampler(name, paper="of the tests", **claims)(function)
    try:
        yield
    finally:
        for name in known:
            del REGISTRY[name]
