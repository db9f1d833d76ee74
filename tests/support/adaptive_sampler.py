"""An adaptive sampler whose steps differ from sample to sample."""

from __future__ import annotations

import math
from typing import Annotated

import torch

from kdiff.options import Option
from kdiff.samplers import sampler
from kdiff.samplers.contract import Ask

NAME, LIMIT = "careful", 400


def register() -> None:
    @sampler(NAME, order=1, paper="a test", nfe=None, limit=LIMIT, linear=False)
    def careful(x, sigmas, *, tolerance: Annotated[float, Option("of a step", 0)] = 0.05):
        """Euler, each interval halved until the slope at its end says about the same."""
        done = []
        for i in range(len(x)):
            done.append((yield from _one(x[i : i + 1], i, sigmas, tolerance)))
        return torch.cat(done)


def _one(x, row, sigmas, tolerance):
    levels = list(reversed(sigmas))
    s = levels.pop()
    while levels:
        t = levels[-1]
        d = yield Ask(x, s, rows=[row])
        y = (t / s) * x + (1 - t / s) * d
        if t > 0:
            e = yield Ask(y, t, rows=[row])
            if float(((1 - t / s) / 2 * (e - d)).square().mean().sqrt()) > tolerance:
                levels.append(math.sqrt(s * t))
                continue
        x, s = y, levels.pop()
    return x
