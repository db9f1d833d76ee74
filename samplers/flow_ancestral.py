"""Ancestral samplers that split the noise in the time of a rectified flow, tau = sigma /
(1 + sigma), as ComfyUI does for such models (its RF forms)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from kdiff.samplers.euler import euler
from kdiff.samplers.loops import ancestral, denoises_last, flow_split
from kdiff.samplers.registry import Coroutine, sampler
from kdiff.samplers.steps import eps, euler_step
from kdiff.samplers.two_stage import dpmpp_2s

in_flow = partial(ancestral, split=flow_split)
flow_sampler = partial(sampler, strong=1, noise="white", ode={"eta": 0})
two_stage = partial(flow_sampler, order=2, weak=2, calls=2, first_calls=2)


@denoises_last
def dpm_2_flow(x: Any, s: float, t: float) -> Coroutine:
    """The midpoint rule on the velocity v = e - D, e = (x - D) / sigma, in flow time tau: with
    x / (1 + sigma) for x, x_t = x_s + (tau_t - tau_s) v_m, tau_m = sqrt(tau_s tau_t)."""
    d = yield x, s
    tau_s, tau_t = s / (1 + s), t / (1 + t)
    m = math.sqrt(s * t) / (math.sqrt((1 + s) * (1 + t)) - math.sqrt(s * t))
    x_m = euler_step(x, d, s, m)
    d_m = yield x_m, m
    return (1 + t) / (1 + s) * x + (1 + t) * (tau_t - tau_s) * (eps(x_m, d_m, m) - d_m)


flow_sampler(
    "euler_ancestral_flow",
    order=1,
    weak=1,
    paper="Song et al. 2021 (DDIM), eq. 12, with another sigma; ComfyUI, sample_euler_ancestral_RF",
    aliases=("euler_ancestral_RF", "LTXEulerAncestralRFScheduler"),
)(in_flow(euler))

two_stage(
    "dpm_2_ancestral_flow",
    paper="Lu et al. 2022 (DPM-Solver), algorithm 1, on the velocity; ComfyUI's RF form",
    aliases=("dpm_2_ancestral_RF",),
)(in_flow(dpm_2_flow))

two_stage(
    "dpmpp_2s_ancestral_flow",
    paper="Lu et al. 2022 (DPM-Solver++), algorithm 1, to sigma_down; ComfyUI's RF form",
    aliases=("dpmpp_2s_ancestral_RF",),
)(in_flow(dpmpp_2s))
