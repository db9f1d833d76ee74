"""PFDiff: a past noise prediction as the springboard to a future one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from kdiff.samplers.registry import Coroutine, sampler
from kdiff.samplers.steps import eps


@sampler(
    "pfdiff",
    order=2,
    first_calls=2,
    paper="Wang et al. 2024 (PFDiff), algorithm 1 with k = h = 1, on DDIM",
    aliases=("PFDiff-1",),
)
def pfdiff(x: Any, sigmas: Sequence[float]) -> Coroutine:
    """x_m = x_s + (m - s) e_past, then x_t = x_s + (t - s) e(x_m; m), m = sqrt(s t): the midpoint
    rule of `dpm_2` for one evaluation, as the way to m is the prediction of the step before. The
    paper's grid lists the middles too."""
    past: Any = None
    for s, t in pairwise(sigmas):
        if t == 0:
            return (yield x, s)
        if past is None:
            d = yield x, s
            past = eps(x, d, s)
        m = math.sqrt(s * t)
        x_m = x + (m - s) * past
        d_m = yield x_m, m
        past = eps(x_m, d_m, m)
        x = x + (t - s) * past
    return x
