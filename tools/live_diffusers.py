"""Measures three of diffusers' mistakes with diffusers itself, for tools/show_mistake.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDIMScheduler, EDMDPMSolverMultistepScheduler, PNDMScheduler

import exact_ode

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.from_numpy(exact_ode.denoise(x.numpy(), sigma))


def preserving(scheduler, steps: int, prediction: str) -> tuple[np.ndarray, list[int]]:
    """The result of a variance-preserving scheduler with the exact network, and its timesteps."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(exact_ode.STARTS) / exact_ode.SIGMA_MAX  # near enough to N(0, 1)
    for t in scheduler.timesteps:
        alpha = float(scheduler.alphas_cumprod[t]) ** 0.5
        sigma = math.sqrt(1 / alpha**2 - 1)
        d = denoise(x / alpha, sigma)
        output = (x / alpha - d) / sigma
        if prediction == "v_prediction":
            output = alpha * (output - sigma * d)
        x = scheduler.step(output, t, x).prev_sample
    return x.numpy(), scheduler.timesteps.tolist()


def pndm_v() -> None:
    """A network that predicts v, and one that predicts the eps of the same v."""
    print("largest difference between the results of one model as an eps and as a v network:")
    for steps in (10, 20, 50):
        found = [
            preserving(
                PNDMScheduler(skip_prk_steps=True, prediction_type=kind, **BETAS), steps, kind
            )[0]
            for kind in ("epsilon", "v_prediction")
        ]
        spread = np.abs(found[0]).max()
        print(f"published  {steps} steps: {np.abs(found[0] - found[1]).max() / spread:.1e}")
    print("corrected  plms: 0, since a sampler sees the denoised only")


def edm(steps: int, **options) -> float:
    """The mean error of the EDM scheduler at sigma_min."""
    scheduler = EDMDPMSolverMultistepScheduler(
        sigma_min=exact_ode.SIGMA_MIN,
        sigma_max=exact_ode.SIGMA_MAX,
        sigma_data=0.5,
        prediction_type="epsilon",
        final_sigmas_type="sigma_min",
        lower_order_final=False,
        **options,
    )
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor(exact_ode.grid(steps), dtype=torch.float64)
    x = torch.from_numpy(exact_ode.STARTS)
    for i, t in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[i])
        total = sigma**2 + 0.25
        output = (denoise(x, sigma) - 0.25 / total * x) / (sigma * 0.5 / math.sqrt(total))
        x = scheduler.step(output, t, x).prev_sample
    return float(np.abs(x.numpy() - exact_ode.solution()).mean())


def edm_3() -> None:
    steps = (16, 32, 64, 128)
    errors = [edm(n, solver_order=3) for n in steps]
    print("mean error at N =", *(f"{n}: {e:.1e}" for n, e in zip(steps, errors, strict=True)))
    print(f"published  order {exact_ode.order(steps, errors):.2f}")
    print("corrected  dpmpp_3m: see dpm_solver_3")
    _crashes(
        "sde-dpmsolver++ of order 3",
        lambda: edm(4, solver_order=3, algorithm_type="sde-dpmsolver++"),
    )


def _crashes(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except UnboundLocalError as error:
        print(f"published  {what}: {type(error).__name__}")
    else:
        print(f"published  {what}: runs")


def ddim_linspace() -> None:
    """Where each step ends, and where the next begins."""
    for steps in (10, 20, 50):
        scheduler = DDIMScheduler(timestep_spacing="linspace", **BETAS)
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps.tolist()
        ends = [t - scheduler.config.num_train_timesteps // steps for t in times]
        gaps = [end - following for end, following in zip(ends, times[1:], strict=False)]
        print(
            f"published  {steps} steps: timesteps {times[:3]} .., steps end at {ends[:2]} ..,",
            end=" ",
        )
        print(f"up to {max(map(abs, gaps))} timesteps from where the next begins")
    print("corrected  ddim: each step ends where the next begins")
