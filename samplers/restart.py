"""Restart: Heun's method, which goes back up by fresh noise, and down again, where it pays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from kdiff.samplers.loops import S_NOISE, S_TMAX, S_TMIN, at_step
from kdiff.samplers.registry import Coroutine, Final, Noise, Option, sampler
from kdiff.samplers.two_stage import heun

MOST = 1000  # points, and times, of an interval
LARGEST = 1e18  # noise level
RHO = 7  # of the levels within an interval, as in Karras et al. 2022, eq. 5

CIFAR10 = "[[3, 2, 0.14, 0.30]]"
IMAGENET64 = (
    "[[4, 1, 19.35, 40.79], [4, 1, 1.09, 1.92], [4, 5, 0.59, 1.09], [4, 5, 0.30, 0.59], "
    "[6, 6, 0.06, 0.30]]"
)
STABLE_DIFFUSION = "[[10, 1, 0.1, 2]]"
CODE = {"gamma": 0.05, "S_tmin": 0.01, "S_tmax": 1.0}  # of its command lines


class Interval(NamedTuple):
    """Back from t_min to t_max, `times`; each time down again over `points` levels."""

    points: int
    times: int
    t_min: float
    t_max: float

    def levels(self, t: float) -> list[float]:
        """Down to the grid's level t. If that is not below t_max, up as far as t_min is from it."""
        top = self.t_max if self.t_max > t else t * self.t_max / self.t_min
        ends, last = (top ** (1 / RHO), t ** (1 / RHO)), self.points - 1
        inner = [(ends[0] + i / last * (ends[1] - ends[0])) ** RHO for i in range(1, last)]
        return [top, *inner, t]


def intervals(text: str) -> list[Interval]:
    """Of JSON: a list of [points, times, t_min, t_max], or the authors' {"0": [..], ..}.
    ValueError if it is anything else."""
    try:
        found = json.loads(text or "[]")
        listed = [Interval(*one) for one in (found.values() if isinstance(found, dict) else found)]
        if all(
            type(one.points) is type(one.times) is int
            and 1 < one.points <= MOST
            and 0 < one.times <= MOST
            and 0 < one.t_min < one.t_max <= LARGEST
            for one in listed
        ):
            return listed
    except (ValueError, TypeError, RecursionError):
        pass
    raise ValueError(
        "restarts must be [[points, times, t_min, t_max], ..] in JSON, with 2 points or more, "
        f"whole numbers of both, at most {MOST:,}, and t_min below t_max, not {text!r:.80}"
    )


def evaluations(steps: int, final: Final, options: Mapping[str, Any]) -> int:
    main = 2 * steps - (final == "zero")
    if main == 1:
        return 1  # no level from which to go back
    return main + sum(one.times * 2 * (one.points - 1) for one in intervals(options["restarts"]))


def by_level(sigmas: Sequence[float], listed: Sequence[Interval]) -> dict[int, list[Interval]]:
    """The intervals that begin at each level: the one nearest to t_min."""
    ends: dict[int, list[Interval]] = {}
    inner = [i for i, sigma in enumerate(sigmas) if i and sigma]
    for one in listed if inner else ():
        nearest = min(inner, key=lambda i: abs(sigmas[i] - one.t_min))
        ends.setdefault(nearest, []).append(one)
    return ends


@sampler(
    "restart",
    order=2,
    nfe=evaluations,
    paper="Xu et al. 2023 (Restart sampling), algorithm 1, in the form of its code",
    noise="white",
    ode={"restarts": ""},
    presets={
        "Restart CIFAR-10": {"restarts": CIFAR10, **CODE},
        "Restart ImageNet-64": {"restarts": IMAGENET64, **CODE},
    },
)
def restart(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    restarts: Annotated[
        str, Option("[[points, times, t_min, t_max], ..] in JSON; nothing: Heun's method")
    ] = STABLE_DIFFUSION,
    gamma: Annotated[float, Option("churn in the steps of an interval", 0, 1)] = 0.0,
    S_tmin: Annotated[float, S_TMIN] = 0.0,
    S_tmax: Annotated[float, S_TMAX] = math.inf,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """Heun's steps; from the level nearest to t_min, up by x + sqrt(t_max^2 - t^2) n, and down over
    levels of their own, so many times. The default is A1111's setting for 20 to 35 steps."""
    places = by_level(sigmas, intervals(restarts))

    def raised(x: Any, s: float, t: float, draw: int) -> Any:
        return x + s_noise * math.sqrt((t - s) * (t + s)) * noise(s, t, draw)

    for i, (s, t) in enumerate(pairwise(sigmas)):
        x = yield from at_step(i, heun(x, s, t))
        again = [one.levels(t) for one in places.get(i + 1, ()) for _ in range(one.times)]
        for draw, levels in enumerate(again):
            x = raised(x, t, levels[0], draw)
            for a, b in pairwise(levels):
                churned = a * (1 + gamma) if S_tmin <= a <= S_tmax else a
                if churned > a:
                    x = raised(x, a, churned, draw)
                x = yield from at_step(i, heun(x, churned, b))
    return x
