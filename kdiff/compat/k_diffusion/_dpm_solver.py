"""DPM-Solver with single steps, `dpm_fast` and `dpm_adaptive` (Lu et al. 2022, "DPM-Solver: A Fast
ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps"), with k-diffusion's
signatures.

Its time is t = -ln sigma, the paper's lambda where alpha = 1. It steps the noise prediction
eps = (x - D) / sigma. A step of the SDE is a step of the ODE to sigma_down, and then noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdiff.compat.k_diffusion._steps import get_ancestral_step
from kdiff.counts import MOST_STEPS, whole_number
from kdiff.driver import NonFiniteError
from kdiff.samplers.step_size import PIDStepSizeController

_Evaluations = dict[str, Tensor]
_NoiseSampler = Callable[[Tensor, Tensor], Tensor]


class DPMSolver(nn.Module):
    """The solver of orders 1 to 3 around `model(x, sigma, **extra_args)`.

    `eps_callback()` is called after each evaluation, `info_callback(dict)` once a step.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        extra_args: Mapping[str, Any] | None = None,
        eps_callback: Callable[[], Any] | None = None,
        info_callback: Callable[[dict[str, Any]], Any] | None = None,
    ):
        super().__init__()
        self.model = model
        self.extra_args = extra_args or {}
        self.eps_callback, self.info_callback = eps_callback, info_callback

    def t(self, sigma: Tensor) -> Tensor:
        return -sigma.log()

    def sigma(self, t: Tensor) -> Tensor:
        return t.neg().exp()

    def eps(
        self, eps_cache: _Evaluations, key: str, x: Tensor, t: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, _Evaluations]:
        """The evaluation `key` of this step, made if the cache does not have it; and the cache."""
        if key not in eps_cache:
            sigma = self.sigma(t)
            in_batch = sigma * x.new_ones([len(x)])
            denoised = self.model(x, in_batch, *args, **self.extra_args, **kwargs)
            eps_cache = {**eps_cache, key: (x - denoised) / sigma}
            if self.eps_callback is not None:
                self.eps_callback()
        return eps_cache[key], eps_cache

    def dpm_solver_1_step(
        self, x: Tensor, t: Tensor, t_next: Tensor, eps_cache: _Evaluations | None = None
    ) -> tuple[Tensor, _Evaluations]:
        """The paper's eq. 3.7, which is DDIM."""
        eps, cache = self.eps(eps_cache or {}, "eps", x, t)
        return self._euler(x, t, t_next, eps), cache

    def dpm_solver_2_step(
        self,
        x: Tensor,
        t: Tensor,
        t_next: Tensor,
        r1: float = 1 / 2,
        eps_cache: _Evaluations | None = None,
    ) -> tuple[Tensor, _Evaluations]:
        """Algorithm 4, with an intermediate time at the part `r1` of the step."""
        h = t_next - t
        eps, cache = self.eps(eps_cache or {}, "eps", x, t)
        s1 = t + r1 * h
        eps_1, cache = self.eps(cache, "eps_r1", self._euler(x, t, s1, eps), s1)
        correction = self.sigma(t_next) / (2 * r1) * h.expm1() * (eps_1 - eps)
        return self._euler(x, t, t_next, eps) - correction, cache

    def dpm_solver_3_step(
        self,
        x: Tensor,
        t: Tensor,
        t_next: Tensor,
        r1: float = 1 / 3,
        r2: float = 2 / 3,
        eps_cache: _Evaluations | None = None,
    ) -> tuple[Tensor, _Evaluations]:
        """Algorithm 5, with two intermediate times."""
        eps, cache = self.eps(eps_cache or {}, "eps", x, t)
        s1, s2 = t + r1 * (t_next - t), t + r2 * (t_next - t)
        eps_1, cache = self.eps(cache, "eps_r1", self._euler(x, t, s1, eps), s1)
        u2 = self._euler(x, t, s2, eps) - self._bend(t, s2) * r2 / r1 * (eps_1 - eps)
        eps_2, cache = self.eps(cache, "eps_r2", u2, s2)
        return self._euler(x, t, t_next, eps) - self._bend(t, t_next) / r2 * (eps_2 - eps), cache

    def _euler(self, x: Tensor, t: Tensor, t_next: Tensor, eps: Tensor) -> Tensor:
        return x - self.sigma(t_next) * (t_next - t).expm1() * eps

    def _bend(self, t: Tensor, t_next: Tensor) -> Tensor:
        """sigma (e^h - 1 - h) / h: what a slope in t of eps adds over the step."""
        h = t_next - t
        return self.sigma(t_next) * (h.expm1() / h - 1)

    def dpm_solver_fast(
        self,
        x: Tensor,
        t_start: Tensor,
        t_end: Tensor,
        nfe: int,
        eta: float = 0.0,
        s_noise: float = 1.0,
        noise_sampler: _NoiseSampler | None = None,
    ) -> Tensor:
        """`nfe` evaluations in steps of order 3, even in t, and one or two of lower order at the
        end (the paper's section 3.4)."""
        noise = noise_sampler or _white(x)
        self._forward(t_start, t_end, eta)
        thirds, rest = divmod(whole_number("n", nfe, 1, MOST_STEPS), 3)
        orders = [3] * thirds + [rest] if rest else [3] * (thirds - 1) + [2, 1]
        ts = torch.linspace(float(t_start), float(t_end), len(orders) + 1, device=x.device)
        for i, order in enumerate(orders):
            t, t_next = ts[i], ts[i + 1]
            t_down, sigma_up = self._down(t, t_next, t_end, eta)
            eps, cache = self.eps({}, "eps", x, t)
            if self.info_callback is not None:
                denoised = x - self.sigma(t) * eps
                self.info_callback({"x": x, "i": i, "t": t, "t_up": t, "denoised": denoised})
            step = (self.dpm_solver_1_step, self.dpm_solver_2_step, self.dpm_solver_3_step)
            x, _ = step[order - 1](x, t, t_down, eps_cache=cache)  # type: ignore[operator]
            x = x + sigma_up * s_noise * noise(self.sigma(t), self.sigma(t_next))
        return x

    def dpm_solver_adaptive(
        self,
        x: Tensor,
        t_start: Tensor,
        t_end: Tensor,
        order: int = 3,
        rtol: float = 0.05,
        atol: float = 0.0078,
        h_init: float = 0.05,
        pcoeff: float = 0.0,
        icoeff: float = 1.0,
        dcoeff: float = 0.0,
        accept_safety: float = 0.81,
        eta: float = 0.0,
        s_noise: float = 1.0,
        noise_sampler: _NoiseSampler | None = None,
    ) -> tuple[Tensor, dict[str, int]]:
        """DPM-Solver-12 or -23 (the paper's appendix C.3), and how many steps and evaluations it
        took. NonFiniteError if the step size vanishes."""
        noise = noise_sampler or _white(x)
        if order not in (2, 3):
            raise ValueError(f"order must be 2 or 3, not {order!r}")
        forward = self._forward(t_start, t_end, eta)
        h, earlier = (abs(h_init), torch.minimum) if forward else (-abs(h_init), torch.maximum)
        pid = PIDStepSizeController(h, pcoeff, icoeff, dcoeff, 1.5 if eta else order, accept_safety)
        info = {"steps": 0, "nfe": 0, "n_accept": 0, "n_reject": 0}
        s, x_prev = t_start, x
        while s < t_end - 1e-5 if forward else s > t_end + 1e-5:
            t = earlier(t_end, s + pid.h)
            if not (t > s if forward else t < s):
                raise NonFiniteError(
                    f"the step size of dpm_adaptive is {pid.h:g} at sigma = {self.sigma(s):g}: "
                    "the model's output is not finite, or h_init or both tolerances are 0"
                )
            t_down, sigma_up = self._down(s, t, t_end, eta)
            eps, cache = self.eps({}, "eps", x, s)
            denoised = x - self.sigma(s) * eps
            x_low, x_high = self._both_orders(order, x, s, t_down, cache)
            tolerance = (rtol * torch.maximum(x_low.abs(), x_prev.abs())).clamp(min=atol)
            error = torch.linalg.norm((x_low - x_high) / tolerance) / x.numel() ** 0.5
            if pid.propose_step(error):
                x_prev = x_low
                x = x_high + sigma_up * s_noise * noise(self.sigma(s), self.sigma(t))
                s = t
                info["n_accept"] += 1
            else:
                info["n_reject"] += 1
            info["nfe"] += order
            info["steps"] += 1
            if self.info_callback is not None:
                now = {"x": x, "i": info["steps"] - 1, "t": s, "t_up": s, "denoised": denoised}
                self.info_callback({**now, "error": error, "h": pid.h, **info})
        return x, info

    def _both_orders(
        self, order: int, x: Tensor, s: Tensor, t: Tensor, cache: _Evaluations
    ) -> tuple[Tensor, Tensor]:
        """Steps of orders `order` - 1 and `order` that share their evaluations."""
        if order == 2:
            low, cache = self.dpm_solver_1_step(x, s, t, eps_cache=cache)
            return low, self.dpm_solver_2_step(x, s, t, eps_cache=cache)[0]
        low, cache = self.dpm_solver_2_step(x, s, t, 1 / 3, eps_cache=cache)
        return low, self.dpm_solver_3_step(x, s, t, eps_cache=cache)[0]

    def _forward(self, t_start: Tensor, t_end: Tensor, eta: float) -> bool:
        """Whether noise is removed. ValueError if noise is to be added to a run that adds it."""
        forward = bool(t_end > t_start)
        if eta and not forward:
            raise ValueError("eta must be 0 where sigma rises")
        return forward

    def _down(self, t: Tensor, t_next: Tensor, t_end: Tensor, eta: float) -> tuple[Tensor, Any]:
        """The time of sigma_down, at most `t_end`, and sigma_up."""
        if not eta:
            return t_next, 0.0
        down, _ = get_ancestral_step(self.sigma(t), self.sigma(t_next), eta)
        t_down = torch.minimum(t_end, self.t(down))
        return t_down, (self.sigma(t_next) ** 2 - self.sigma(t_down) ** 2).clamp(min=0) ** 0.5


def _white(x: Tensor) -> _NoiseSampler:
    return lambda sigma, sigma_next: torch.randn_like(x)


def _times(solver: DPMSolver, sigma_min: Any, sigma_max: Any) -> tuple[Tensor, Tensor]:
    sigmas = [
        torch.as_tensor(sigma, dtype=torch.get_default_dtype()) for sigma in (sigma_max, sigma_min)
    ]
    if not all(0 < sigma < math.inf for sigma in sigmas):
        raise ValueError("sigma_min and sigma_max must be above 0, and finite")
    return solver.t(sigmas[0]), solver.t(sigmas[1])


def _solver(model: Any, extra_args: Any, callback: Any, bar: Any) -> DPMSolver:
    solver = DPMSolver(model, extra_args, eps_callback=bar.update)
    if callback is not None:
        solver.info_callback = lambda info: callback(
            {"sigma": solver.sigma(info["t"]), "sigma_hat": solver.sigma(info["t_up"]), **info}
        )
    return solver


@torch.no_grad()
def sample_dpm_fast(
    model,
    x,
    sigma_min,
    sigma_max,
    n,
    extra_args=None,
    callback=None,
    disable=None,
    eta=0.0,
    s_noise=1.0,
    noise_sampler=None,
) -> Tensor:
    """From sigma_max to sigma_min in `n` evaluations: `DPMSolver.dpm_solver_fast`."""
    n = whole_number("n", n, 1, MOST_STEPS)
    with tqdm(total=n, disable=disable) as bar:
        solver = _solver(model, extra_args, callback, bar)
        ends = _times(solver, sigma_min, sigma_max)
        return solver.dpm_solver_fast(x, *ends, n, eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_dpm_adaptive(
    model,
    x,
    sigma_min,
    sigma_max,
    extra_args=None,
    callback=None,
    disable=None,
    order=3,
    rtol=0.05,
    atol=0.0078,
    h_init=0.05,
    pcoeff=0.0,
    icoeff=1.0,
    dcoeff=0.0,
    accept_safety=0.81,
    eta=0.0,
    s_noise=1.0,
    noise_sampler=None,
    return_info=False,
) -> Any:
    """From sigma_max to sigma_min in steps of which each keeps within the tolerances:
    `DPMSolver.dpm_solver_adaptive`. With `return_info`, (x, its info)."""
    with tqdm(disable=disable) as bar:
        solver = _solver(model, extra_args, callback, bar)
        ends = _times(solver, sigma_min, sigma_max)
        pid = (h_init, pcoeff, icoeff, dcoeff, accept_safety)
        noise = (eta, s_noise, noise_sampler)
        x, info = solver.dpm_solver_adaptive(x, *ends, order, rtol, atol, *pid, *noise)
    return (x, info) if return_info else x
