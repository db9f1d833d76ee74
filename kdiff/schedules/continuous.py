"""Schedules for any model: formulas of (n, sigma_min, sigma_max) and their settings."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from kdiff.betas import iddpm_sigmas
from kdiff.samplers.vp import BETA_D, BETA_MIN, vp_sigma, vp_time
from kdiff.schedules.beta_quantiles import beta_quantiles
from kdiff.schedules.registry import registered
from kdiff.schedules.resolution import resolution_mu
from kdiff.schedules.spreading import separated


@registered(aliases=("use_karras_sigmas",))
def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> np.ndarray:
    """sigma^(1 / rho) is linear (Karras et al. 2022, eq. 5)."""
    return np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n) ** rho


@registered(aliases=("logsnr", "ve", "use_exponential_sigmas", "use_lu_lambdas"))
def exponential(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """ln sigma is linear: even in log SNR (Lu et al. 2022, DPM-Solver), and in the VE SDE's time
    (Karras et al. 2022, table 1)."""
    return np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), n))


@registered()
def polyexponential(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> np.ndarray:
    """ln sigma = ln sigma_min + u^rho ln(sigma_max / sigma_min), u from 1 to 0 (k-diffusion)."""
    return sigma_min * np.exp(np.linspace(1, 0, n) ** rho * math.log(sigma_max / sigma_min))


@registered()
def vp(
    n: int, sigma_min: float, sigma_max: float, beta_d: float = BETA_D, beta_min: float = BETA_MIN
) -> np.ndarray:
    """The time of the VP SDE is linear (Song et al. 2021; Karras et al. 2022, table 1)."""
    first, last = vp_time(sigma_max, beta_d, beta_min), vp_time(sigma_min, beta_d, beta_min)
    return vp_sigma(np.linspace(first, last, n), beta_d, beta_min)


@registered(presets={"time_quadratic": {"power": 2.0}})
def time_uniform(
    n: int, sigma_min: float, sigma_max: float, power: float = 1.0, t_min: float = 1e-3
) -> np.ndarray:
    """t^(1 / power) is linear in the time of a VP SDE that goes from sigma_min at t_min to
    sigma_max at 1: its beta_d and beta_min follow from the range (diff-sampler; `power` 2 is the
    quadratic spacing of Song et al. 2021, DDIM, in continuous time). t_min is raised where beta_d
    would be negative."""
    low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
    t_min = max(t_min, low / high)
    beta_d = 2 * (low / t_min - high) / (t_min - 1)
    beta_min = high - beta_d / 2
    t = np.linspace(1, t_min ** (1 / power), n) ** power
    return np.sqrt(np.expm1(beta_d * t * t / 2 + beta_min * t))


@registered()
def iddpm(
    n: int, sigma_min: float, sigma_max: float, c1: float = 0.001, c2: float = 0.008
) -> np.ndarray:
    """Evenly over those of iDDPM's 1000 noise levels that are within the range, to the nearest
    (Karras et al. 2022, table 1). If two points have the same, they are spread."""
    u = np.array(iddpm_sigmas(1000, c1, c2)[::-1])
    u = u[(u >= sigma_min) & (u <= sigma_max)]
    if len(u) < 2:
        raise ArithmeticError("iDDPM has too few noise levels in that range")
    return np.exp(separated(np.log(u[np.round(np.linspace(0, len(u) - 1, n)).astype(int)])))


@registered()
def cosine(n: int, sigma_min: float, sigma_max: float, s: float = 0.008) -> np.ndarray:
    """The time of the cosine schedule is linear: 1 + sigma^2 = cos^2(a) / cos^2(b), with a = s pi /
    (2 (1 + s)) and b linear (Nichol & Dhariwal 2021, eq. 17)."""
    start = math.cos(s / (1 + s) * math.pi / 2)

    def angle(sigma: float) -> float:
        cosine = start / math.hypot(1, sigma)
        return math.atan2(
            math.sqrt(sigma * sigma + 1 - start * start) / math.hypot(1, sigma), cosine
        )

    return np.sqrt((start / np.cos(np.linspace(angle(sigma_max), angle(sigma_min), n))) ** 2 - 1)


@registered()
def kl_optimal(n: int, sigma_min: float, sigma_max: float, sigma_data: float = 1.0) -> np.ndarray:
    """atan(sigma / sigma_data) is linear: optimal for Gaussian data of that standard deviation, by
    the Kullback-Leibler divergence (Sabour et al. 2024, Align Your Steps)."""
    first, last = math.atan(sigma_max / sigma_data), math.atan(sigma_min / sigma_data)
    return sigma_data * np.tan(np.linspace(first, last, n))


@registered()
def laplace(
    n: int, sigma_min: float, sigma_max: float, mu: float = 0.0, beta: float = 0.5
) -> np.ndarray:
    """Even quantiles of ln sigma ~ Laplace(mu, beta) (Hang et al. 2024), with 1e-5 added under the
    logarithm and limited to the range, as in ComfyUI. Points beyond the range are spread between
    its end and the first that is within."""
    x = np.linspace(0, 1, n)
    logs = mu - beta * np.sign(0.5 - x) * np.log(1 - 2 * np.abs(0.5 - x) + 1e-5)
    return np.exp(separated(np.clip(logs, math.log(sigma_min), math.log(sigma_max))))


@registered(aliases=("use_beta_sigmas",))
def beta(
    n: int, sigma_min: float, sigma_max: float, alpha: float = 0.6, beta: float = 0.6
) -> np.ndarray:
    """Even quantiles of sigma ~ Beta(alpha, beta) over the range (Lee et al. 2024, as diffusers and
    A1111 have it). The paper, and ComfyUI, take quantiles of the timestep: `beta_timesteps`."""
    return sigma_min + (sigma_max - sigma_min) * beta_quantiles(np.linspace(1, 0, n), alpha, beta)


@registered(ends="zero")
def probit(n: int, sigma_min: float, sigma_max: float, scale: float = 3.0) -> np.ndarray:
    """Even quantiles of sigma whose logit is normal, of standard deviation `scale`, stretched to
    the range; on to sigma = 0 (skrample). The first is the quantile of 1 - 1e-8."""
    p = np.linspace(1, 0, n) * (1 - 1e-8)
    normal = NormalDist()
    z = np.array([normal.inv_cdf(each) if each > 0 else -math.inf for each in p.tolist()])
    s = 1 / (1 + np.exp(-scale * np.maximum(z, -200 / scale)))
    s[p == 0] = 0
    return sigma_min + (sigma_max - sigma_min) * s / s[0]


@registered(ends="zero", flow=True)
def linear_quadratic(
    n: int,
    sigma_min: float,
    sigma_max: float,
    threshold: float = 0.025,
    linear: float = 0.5,
) -> np.ndarray:
    """u falls linearly, by `threshold` in all, in a part `linear` of the steps, and then
    quadratically to 0, without a kink (Polyak et al. 2024, Movie Gen; Mochi)."""
    steps = n - 1
    first = int(steps * linear)
    if steps < 2 or not 0 < first < steps:
        return np.linspace(sigma_max, sigma_min, n)
    slope, rest = threshold / first, steps - first
    i = np.arange(n)
    curve = (1 - threshold - slope * rest) / rest**2
    gone = slope * i + np.where(i > first, curve * (i - first) ** 2, 0)
    return sigma_max - (sigma_max - sigma_min) * gone


@registered(ends="zero", flow=True)
def bong_tangent(
    n: int,
    sigma_min: float,
    sigma_max: float,
    middle: float = 0.5,
    pivot: float = 0.6,
    slope: float = 0.2,
) -> np.ndarray:
    """u falls along two arctangents, from 1 to `middle` and from there to 0; they meet at the share
    `pivot` of the steps (RES4LYF)."""
    if n < 3:
        return np.linspace(sigma_max, sigma_min, n)
    total = n + 1
    first = min(max(int(total * pivot), 1), n)
    steepness = slope * 40 / total

    def part(count: int, centre: float, start: float, end: float) -> np.ndarray:
        if count < 2:
            return np.full(count, start)
        y = -np.arctan(steepness * (np.arange(count) - centre))
        return end + (start - end) * (y - y[-1]) / (y[0] - y[-1])

    shape = np.append(part(first, first, 1, middle)[:-1], part(total - first, 0, middle, 0))
    return sigma_min + (sigma_max - sigma_min) * shape


@registered(ends="zero", flow=True, presets={"flow_shift": {"shift": 3.0}})
def flow(n: int, sigma_min: float, sigma_max: float, shift: float = 1.0) -> np.ndarray:
    """Even in the time of a flow, t, on to 0, then shifted: u = shift t / (1 + (shift - 1) t)
    (Esser et al. 2024, eq. 23; Flux, SD3). For a model whose noise levels are shifted already, as
    those of diffusers are, `shift` comes on top; `even` takes its own."""

    def time(u: float) -> float:
        return u / (shift - (shift - 1) * u)

    t = np.linspace(time(sigma_max), time(sigma_min), n)
    return shift * t / (1 + (shift - 1) * t)


@registered(ends="zero", flow=True)
def flow_resolution(
    n: int,
    sigma_min: float,
    sigma_max: float,
    tokens: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> np.ndarray:
    """`flow` with a shift of e^mu that grows with the size of images: mu is linear in the number of
    tokens, from base_shift at 256 to max_shift at 4096 (Flux; a picture of 1024 x 1024 pixels has
    64 x 64 tokens there)."""
    return flow(n, sigma_min, sigma_max, math.exp(resolution_mu(tokens, base_shift, max_shift)))
