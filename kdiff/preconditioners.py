"""Preconditioners: what a network's output means, as the four coefficients of

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

(Karras et al. 2022, eq. 7). D is the denoiser, F the network, and x = x0 + sigma n is in the
variance-exploding frame: a variance-preserving or flow state is divided by its alpha first.

Where schedules begin. A table of timesteps can go far above all data: the cosine one of 1,000 steps
ends at sigma = 20,291. With D = x - sigma F, an error delta of the network's eps is an error of
sigma delta in D. Good networks have a delta of about 0.01: at a sigma of 200 D is then off by 2,
the width of the data's own range [-1, 1]. A first step from sigma to t leaves (sigma / t - 1) delta
of it, in units of the noise at t; down to t = 12 that is 0.12 from 160, but 17 from 20,291. So
schedules of such networks begin at the highest sigma of the table that is not above
`LARGEST_SIGMA`, unless they are told otherwise. Starting lower costs next to nothing: N(0, sigma^2)
stands for data of mean m and standard deviation s at that noise level, so that the start is off by
m / sigma in its mean and by s^2 / (2 sigma^2) in its standard deviation, relative to sigma; at 160,
for m = s = 0.5, by 0.3% and 5e-6. Where c_out is bounded (v, x0, flow), D is off by delta at most
wherever one begins, and only a sigma that stands for infinity is too far.
"""

from __future__ import annotations

import functools
import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from kdiff.betas import alphas_cumprod as make_alphas_cumprod
from kdiff.betas import iddpm_sigmas, sigmas_of, timesteps, zero_terminal_snr
from kdiff.counts import MOST_STEPS, finite_number, whole_number
from kdiff.names import Registry, left_out
from kdiff.rows import (
    ROWS,
    Clock,
    Row,
    consistency_clock,
    consistency_row,
    denoised_clock,
    discrete_clock,
    edm_clock,
    edm_row,
    flow_clock,
    flow_to_data_clock,
    flow_to_data_row,
    sub_vp_clock,
    sub_vp_row,
    ve_clock,
    vp_clock,
)
from kdiff.samplers.vp import BETA_D, BETA_MIN, vp_sigma


class Coefs(NamedTuple):
    """The four coefficients at one sigma, all Python floats."""

    c_skip: float
    c_out: float
    c_in: float
    c_noise: float


LARGEST_SIGMA = 160.0  # leaves the linear table (157.4) and Stable Diffusion's (14.6) whole
_HUGE = 1e18  # squares of more leave float32
INFINITY = 2.0**20  # the sigma of pure noise, to five digits; beyond, float32 loses the data


@dataclass(frozen=True)
class Precond:
    """One preconditioner. Call it with sigma (a float, > 0) to get its `Coefs`.

    `sigma_min`, `sigma_max`: where schedules end and begin unless they are told otherwise: the
    range that the network was trained for, as far as it is useful (see above).
    `sigmas`: for a discrete-time model, the sigma of each of all timesteps 0 .. T-1, else None.
    `sigma_end`: where schedules of timesteps (linspace, trailing ..) begin, if not at `sigma_max`.
    `config`: if it is one of `PRECONDS`, what `precond(**config)` makes it from again, else None.

    Those of `PRECONDS` can be pickled; any other if its `row` and `clock` can.
    """

    name: str
    row: Row
    clock: Clock
    sigma_min: float
    sigma_max: float
    sigmas: Sequence[float] | None = None
    config: Mapping[str, Any] | None = None
    sigma_end: float | None = None

    def __call__(self, sigma: float) -> Coefs:
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be above 0 and finite, not {sigma}")
        return Coefs(*self.row(sigma), self.clock(sigma))


def _recorded(build: Callable[..., Precond], name: str | None = None) -> Callable[..., Precond]:
    """`build`, which takes its numbers from any library, and whose preconditioners remember their
    settings and `name`, by default its own. ValueError if there is no such preconditioner."""
    name = name or build.__name__
    signature = inspect.signature(build)
    defaults = {key: parameter.default for key, parameter in signature.parameters.items()}

    @functools.wraps(build)
    def recording(*args: Any, **settings: Any) -> Precond:
        given = signature.bind(*args, **settings).arguments
        given |= given.pop("settings", {})
        # All other keywords are settings of a schedule of alphas_cumprod, which are floats.
        plain = {key: _plain(key, value, defaults.get(key, 0.0)) for key, value in given.items()}
        try:
            with np.errstate(over="raise"):
                made = build(**plain)
        except ArithmeticError as error:
            raise ValueError(f"there is no {name} with {plain!s:.80}: {error}") from error
        return replace(made, config={"name": name, **plain})

    return recording


def _plain(key: str, value: Any, default: Any) -> Any:
    """A setting as a plain value: a flag or a finite number, as its default is."""
    if type(default) is bool and value not in (True, False):
        raise ValueError(f"{key} must be True or False, not {value!r:.80}")
    if type(default) is float:
        return finite_number(key, value)
    if type(default) is int:
        return whole_number(key, value, 0, MOST_STEPS)
    return value.tolist() if hasattr(value, "tolist") else value


@_recorded
def edm(sigma_data: float = 0.5, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Precond:
    """EDM (Karras et al. 2022, table 1, "ours"): unit-variance input and training target for
    data of standard deviation `sigma_data`; c_noise = ln(sigma) / 4."""
    _check_sigma_data(sigma_data)
    row = partial(edm_row, sigma_data=sigma_data)
    return Precond("edm", row, edm_clock, sigma_min, sigma_max)


@_recorded
def consistency(
    sigma_data: float = 0.5, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> Precond:
    """A consistency model (Song et al. 2023, appendix C): as `edm`, with c_skip and c_out moved so
    that D(x; sigma_min) = x, and with OpenAI's clock; c_noise = 250 ln(sigma)."""
    _check_sigma_data(sigma_data)
    row = partial(consistency_row, sigma_data=sigma_data, sigma_min=sigma_min)
    return Precond("consistency", row, consistency_clock, sigma_min, sigma_max)


def _check_sigma_data(sigma_data: float) -> None:
    if not 0 < sigma_data <= _HUGE:
        raise ValueError(f"sigma_data must be above 0 and at most {_HUGE:g}, not {sigma_data}")


@_recorded
def ve(sigma_min: float = 0.02, sigma_max: float = 100.0) -> Precond:
    """VE of Song et al. 2021 (Karras et al. 2022, table 1); c_noise = ln(sigma / 2)."""
    return Precond("ve", ROWS["ve"], ve_clock, sigma_min, sigma_max)


@_recorded
def vp(
    beta_d: float = BETA_D, beta_min: float = BETA_MIN, steps: int = 1000, eps_t: float = 1e-5
) -> Precond:
    """VP of Song et al. 2021 (Karras et al. 2022, table 1); c_noise = (steps - 1) t(sigma)."""
    steps = whole_number("steps", steps, 1)
    return Precond(
        "vp",
        ROWS["eps"],
        partial(vp_clock, steps=steps, beta_d=beta_d, beta_min=beta_min),
        float(vp_sigma(eps_t, beta_d, beta_min)),
        float(vp_sigma(1.0, beta_d, beta_min)),
    )


@_recorded
def sub_vp(eps_t: float = 1e-3) -> Precond:
    """The sub-VP SDE of Song et al. 2021: x_t = alpha x0 + (1 - alpha^2) n with VP's alpha(t), so
    that sigma = (1 - alpha^2) / alpha; the network predicts n, c_noise = 999 t."""

    sigma_min, sigma_max = _sub_vp_sigma(eps_t), _sub_vp_sigma(1.0)
    return Precond("sub_vp", sub_vp_row, sub_vp_clock, sigma_min, sigma_max)


def _sub_vp_sigma(t: float) -> float:
    s = float(vp_sigma(t, BETA_D, BETA_MIN))
    return s * s / math.hypot(1, s)


def _highest(sigmas: Sequence[float], limit: float) -> float:
    """The highest of a table's sigmas that is not above `limit`; the second at least."""
    return sigmas[max(1, bisect_right(sigmas, limit) - 1)]


def _discrete(name: str, row: str, sigmas: Sequence[float], round: bool) -> Precond:
    first, end = _highest(sigmas, LARGEST_SIGMA), None
    if row != "eps":  # at infinity itself, continuous grids such as karras would waste steps
        first, end = _highest(sigmas, INFINITY / 2), _highest(sigmas, INFINITY)
    clock = discrete_clock(sigmas, round)
    return Precond(name, ROWS[row], clock, sigmas[0], first, tuple(sigmas), sigma_end=end)


@_recorded
def iddpm(c1: float = 0.001, c2: float = 0.008, steps: int = 1000, round: bool = False) -> Precond:
    """iDDPM (Nichol & Dhariwal 2021) as in Karras et al. 2022, table 1: noise levels u_j as in
    `kdiff.betas.iddpm_sigmas`.

    Table 1 takes the nearest u_j; that is `round=True`. At the u_j themselves both agree.
    """
    steps = timesteps(steps)
    return _discrete("iddpm", "eps", iddpm_sigmas(steps, c1, c2), round)


def _from_alphas(prediction: str) -> Callable[..., Precond]:
    def build(
        alphas_cumprod: str | Sequence[float] = "linear",
        steps: int = 1000,
        round: bool = False,
        zero_snr: bool = False,
        **settings: float,
    ) -> Precond:
        if isinstance(alphas_cumprod, str):
            alphas_cumprod = make_alphas_cumprod(alphas_cumprod, steps, **settings)
        elif settings:
            raise ValueError(f"a list of alphas_cumprod takes no {', '.join(settings)}")
        if zero_snr:
            alphas_cumprod = zero_terminal_snr(alphas_cumprod)
        return _discrete(prediction, prediction, sigmas_of(alphas_cumprod), round)

    build.__name__ = prediction
    build.__doc__ = (
        f"A discrete variance-preserving network that predicts {prediction}. `alphas_cumprod` is "
        "a list, or linear | scaled_linear | cosine with `steps` and that schedule's settings; "
        "c_noise is the timestep in [0, T-1], interpolated in log sigma unless `round`. With "
        "`zero_snr` they are rescaled to zero terminal SNR."
    )
    return _recorded(build)


eps = _from_alphas("eps")
v = _from_alphas("v")
x0 = _from_alphas("x0")


@_recorded
def flow(
    time_scale: float = 1.0,
    sigma_min: float = 0.002,
    sigma_max: float = 1000.0,
    data_at: int = 0,
) -> Precond:
    """Rectified flow (Liu et al. 2022): the network sees x_t = (1 - t) x0 + t n and predicts the
    velocity dx_t / dt = n - x0; sigma = t / (1 - t), c_noise = `time_scale` t. With `data_at=1`
    time runs the other way, t = 1 at the data, and the velocity is x0 - n."""
    if not 0 < time_scale <= _HUGE:
        raise ValueError(f"time_scale must be above 0 and at most {_HUGE:g}, not {time_scale}")
    if data_at not in (0, 1):
        raise ValueError(f"data_at must be 0 or 1, not {data_at!r}")
    row = flow_to_data_row if data_at else ROWS["flow"]
    clock = partial(flow_to_data_clock if data_at else flow_clock, time_scale=time_scale)
    return Precond("flow", row, clock, sigma_min, sigma_max)


@_recorded
def denoised(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Precond:
    """A network that is a denoiser already: D(x; sigma) = F(x; sigma), c_noise = sigma."""
    return Precond("denoised", ROWS["denoised"], denoised_clock, sigma_min, sigma_max)


def _adopt(registry: Registry[Callable[..., Precond]], name: str, build: Any) -> None:
    if callable(build):
        if name not in registry:
            registry[name] = _recorded(build, name)
    elif not isinstance(build, ModuleType):  # which has registered its own
        left_out(registry, name, "a preconditioner is a function")


PRECONDS: Registry[Callable[..., Precond]] = Registry(
    "preconditioner", "kdiff.preconditioners", _adopt
)
for _build in (edm, vp, sub_vp, ve, iddpm, eps, v, x0, flow, denoised, consistency):
    PRECONDS[_build.__name__] = _build


def precond(name: str, **settings: Any) -> Precond:
    """The preconditioner of that name: edm, vp, sub_vp, ve, iddpm, eps, v, x0, flow,
    denoised, consistency, or one of another package.

    UnknownName, a ValueError, on an unknown name; TypeError on a setting that it does not have.
    """
    build = PRECONDS.find(name).thing
    inspect.signature(build).bind(**settings)
    return build(**settings)
