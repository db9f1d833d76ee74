"""The reverse-time SDE as Song et al. 2021 discretise it, with Langevin steps between.

A step is x_t = a x_s + b D + c n, and a predictor is those three numbers. In the frame of the VP
SDE, where x' = x / sqrt(1 + sigma^2) is the state, they are others than in that of the VE SDE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.contract import Ask
from kdiff.samplers.langevin import corrected
from kdiff.samplers.loops import S_NOISE
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.vp import BETA_D, BETA_MIN, vp_time

Row = tuple[float, float, float]  # a, b, c
Predictor = Callable[[float, float, float, str], Row]  # of a step from s to t, with eta

FRAME = Option("whose discretisation: the VE SDE's or the VP SDE's")
ETA = Option("how much of the SDE's noise is added: 0 is the ODE, 1 the reverse SDE", 0, 10)


def in_frame(s: float, t: float, frame: str, dv: float, growth: float, eta: float) -> Row:
    """x' + growth x' + (1 + eta) / 2 dv score' + sqrt(eta dv) n, with the score of the state,
    score' = (D / scale_s - x') (scale_s / s)^2, for a forward noise of variance dv in the step."""
    scale_s, scale_t = (math.hypot(1, s), math.hypot(1, t)) if frame == "vp" else (1.0, 1.0)
    pull = (1 + eta) / 2 * dv * (scale_s / s) ** 2
    ratio = scale_t / scale_s
    return ratio * (1 + growth - pull), ratio * pull, scale_t * math.sqrt(max(0.0, eta * dv))


def euler_maruyama_row(s: float, t: float, eta: float, frame: str) -> Row:
    """Drift and diffusion as they are at s, over the step in the SDE's own time: sigma (edm),
    -ln sigma (ve), or the time in which beta of the VP SDE is linear (vp)."""
    if frame == "edm":
        return in_frame(s, t, frame, 2 * s * (s - t), 0.0, eta)
    if frame == "ve":
        return in_frame(s, t, frame, 2 * s * s * math.log(s / t), 0.0, eta)
    time, end = float(vp_time(s)), float(vp_time(t))
    dv = (BETA_D * time + BETA_MIN) * (time - end)
    return in_frame(s, t, frame, dv, dv / 2, eta)


def reverse_diffusion_row(s: float, t: float, eta: float, frame: str) -> Row:
    """Those of the forward step from t to s, reversed: noise of variance s^2 - t^2 (ve), or
    x'_s = sqrt(1 - beta) x'_t + sqrt(beta) n, beta = (s^2 - t^2) / (1 + s^2) (vp)."""
    square = (s - t) * (s + t)
    if frame == "ve":
        return in_frame(s, t, frame, square, 0.0, eta)
    beta = square / (1 + s * s)
    return in_frame(s, t, frame, beta, 1 - math.hypot(1, t) / math.hypot(1, s), eta)


def ancestral_row(s: float, t: float, eta: float, frame: str) -> Row:
    """DDPM's posterior mean, with its variance (ve), or with the larger one that Song et al. take
    in the VP frame; eta = 1."""
    square, keep = (s - t) * (s + t), (t / s) ** 2
    spread = t / s if frame == "ve" else math.hypot(1, t) / math.hypot(1, s)
    return keep, 1 - keep, spread * math.sqrt(square)


def predicted(x: Any, d: Any, row: Row, s: float, t: float, s_noise: float, noise: Noise) -> Any:
    a, b, c = row
    x = a * x + b * d
    return x + s_noise * c * noise(s, t) if c else x


def steps(
    x: Any, sigmas: Sequence[float], row: Predictor, *, frame: str, eta: float, **noisy: Any
) -> Coroutine:
    """Every step by this predictor; a last one to sigma = 0 gives D."""
    for s, t in pairwise(sigmas):
        d = yield x, s
        if t == 0:
            return d
        x = predicted(x, d, row(s, t, eta, frame), s, t, **noisy)
    return x


register = partial(sampler, order=1, strong=1, weak=1, noise="brownian", ode={"eta": 0})


@register("euler_maruyama", paper="Song et al. 2021 (Score SDE), eq. 6, by Euler and Maruyama")
def euler_maruyama(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    frame: Annotated[
        Literal["edm", "ve", "vp"],
        Option("whose time: sigma (edm), that of the VE SDE, -ln sigma, or that of the VP SDE"),
    ] = "edm",
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """x_t = x_s + (1 + eta) / 2 v (D - x_s) / s^2 + sqrt(eta v) n with v = 2 s (s - t) (edm) or
    v = 2 s^2 ln(s / t) (ve); the same for x / sqrt(1 + sigma^2), with its own drift (vp)."""
    return steps(x, sigmas, euler_maruyama_row, frame=frame, eta=eta, s_noise=s_noise, noise=noise)


@register("reverse_diffusion", paper="Song et al. 2021 (Score SDE), appendix E, eq. 46")
def reverse_diffusion(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    frame: Annotated[Literal["ve", "vp"], FRAME] = "ve",
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """x_t = x_s + (1 + eta) / 2 v (D - x_s) / s^2 + sqrt(eta v) n with v = s^2 - t^2 (ve); the same
    for x / sqrt(1 + sigma^2), with the drift of a discrete forward step (vp)."""
    return steps(
        x, sigmas, reverse_diffusion_row, frame=frame, eta=eta, s_noise=s_noise, noise=noise
    )


PREDICTORS: dict[str, Predictor] = {
    "reverse_diffusion": reverse_diffusion_row,
    "ancestral": ancestral_row,
    "euler_maruyama": euler_maruyama_row,
}


@sampler(
    "predictor_corrector",
    order=1,
    nfe=lambda steps, final, o: steps * (1 + o["corrector_steps"]),
    paper="Song et al. 2021 (Score SDE), algorithms 2 to 5, in the order of its code",
    noise="white",
    ode=None,
    linear=False,
    presets={"ScoreSdeVeScheduler": {"snr": 0.15}},
)
def predictor_corrector(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    predictor: Annotated[
        Literal["reverse_diffusion", "ancestral", "euler_maruyama"], Option("how steps are taken")
    ] = "reverse_diffusion",
    corrector_steps: Annotated[int, Option("Langevin steps before each step", 0, 1000)] = 1,
    snr: Annotated[float, Option("signal-to-noise ratio of a Langevin step", 0, 10)] = 0.16,
    frame: Annotated[Literal["ve", "vp"], FRAME] = "ve",
) -> Coroutine:
    """Langevin steps of size 2 (snr |n| / |score|)^2 at s, then a step of the predictor to t. The
    norms are those of each sample: their code has their means over the batch, on which a sample
    would then depend. In the VP frame the size is also multiplied by (1 + t^2) / (1 + s^2)."""
    row = PREDICTORS[predictor]
    for i, (s, t) in enumerate(pairwise(sigmas)):
        shrink = 1.0 if frame == "ve" else (1 + t * t) / (1 + s * s)
        for draw in range(corrector_steps):
            d = yield Ask(x, s, step=i)
            x = corrected(x, d, s, snr, shrink, noise(s, s, draw))
        d = yield Ask(x, s, step=i)
        if t == 0:
            return d
        x = predicted(x, d, row(s, t, 1.0, frame), s, t, 1.0, noise)
    return x
