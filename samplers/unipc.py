"""UniPC, and the loop of all multistep predictors whose step is taken again, corrected, once D is
known at its end: SA-Solver's too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from kdiff.samplers.coefficients import LOWER, orders, usable
from kdiff.samplers.exponential import History, exact_moments, nodes, step
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler

# moments_of(s, t, k, eta): the first k, over a step from s to t.
Moments = Callable[[float, float, int, float], np.ndarray]


def predict_and_correct(
    x: Any,
    sigmas: Sequence[float],
    combined: Sequence[tuple[int, int]],
    moments_of: Moments,
    *,
    again: bool = False,
    eta_of: Callable[[float, float], float] = lambda s, t: 0.0,
    s_noise: float = 1.0,
    noise: Noise | None = None,
) -> Coroutine:
    """In each step `combined` = (p, c): the predictor goes from s to t with the last p D, and the
    corrector takes the same step, with the same noise, with the D at t and the last c - 1 of those;
    c = 0 leaves it as predicted. `again` evaluates once more, at the corrected x (PECE)."""
    most = max(max(p, c - 1) for p, c in combined)
    history: History = []
    correct: Callable[[Any], Any] | None = None
    for (s, t), (p, c) in zip(pairwise(sigmas), combined, strict=True):
        d = yield x, s
        if correct:
            x = correct(d)
            if again:
                d = yield x, s
        history = [(d, s), *history[: most - 1]]
        reach, eta = usable(nodes(history[: max(p, c - 1)], s, t)), eta_of(s, t)
        added = None
        if noise and eta and t:
            added = s_noise * t * math.sqrt(1 - (t / s) ** (2 * eta)) * noise(s, t)
        take = partial(_step, x, s, t, moments_of, eta, added)
        correct = partial(_corrected, take, history[: min(c - 1, reach)], t) if c else None
        x = take(history[: min(p, reach)])
    return x


def _step(
    x: Any, s: float, t: float, moments_of: Moments, eta: float, added: Any, used: History
) -> Any:
    x = step(x, used, s, t, moments_of(s, t, len(used), eta), eta)
    return x if added is None else x + added


def _corrected(take: Callable[[History], Any], before: History, t: float, d: Any) -> Any:
    return take([*before, (d, t)])


def half_moments(s: float, t: float, k: int, eta: float, variant: str) -> np.ndarray:
    """Exact moments, but for two predictions: there the paper sets the one unknown coefficient to
    1/2 against B(h) = h (bh1) or 1 - e^-h (bh2), instead of solving for it."""
    m = exact_moments(s, t, k, eta)
    if len(m) == 2 and variant != "vary_coeff":
        m[1] = ((1 + eta) * math.log(s / t) if variant == "bh1" else m[0]) / 2
    return m


@sampler(
    "unipc",
    order=lambda o: 2 if o["lower_order_final"] else o["order"] + o["corrector"],
    paper="Zhao et al. 2023 (UniPC), algorithms 1 and 2, on the data prediction",
    aliases=("uni_pc",),
    presets={
        "uni_pc_bh1": {"variant": "bh1"},
        "uni_pc_bh2": {"variant": "bh2"},
        "UniPCMultistepScheduler": {"lower_order_final": True},
    },
)
def unipc(
    x: Any,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Option("order of the predictor", 1, 9)] = 2,
    variant: Annotated[
        Literal["bh1", "bh2", "vary_coeff"],
        Option("B(h) = h, or 1 - e^-h; vary_coeff: UniPC_v, without B"),
    ] = "bh2",
    corrector: Annotated[bool, Option("false: UniP alone, of order p")] = True,
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """UniP-p predicts x_t from the last p predictions; the evaluation there is then also used to
    correct it (UniC-p, order p + 1), at no further cost. `order` p gives order p + 1.

    With exact moments B(h) cancels, so that the variants differ only where p = 2 or, in the
    corrector, p = 1. UniPC_v (appendix C of the paper) has exact moments there too.
    """
    combined = [(p, p + 1 if corrector else 0) for p in orders(sigmas, order, lower_order_final)]
    return predict_and_correct(x, sigmas, combined, partial(half_moments, variant=variant))
