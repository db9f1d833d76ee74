"""kdiff.invert against diffusers' DDIMInverseScheduler, run side by side on one exact model."""

import math

import pytest

import kdiff
from diffusers_parity import MODEL, START, TOLERANCE, distance, table

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_inversion(spacing, prediction, make):
    """Each step gets the answer at the noise level of its sample, as in DDIM. (Pipelines that give
    this scheduler's own timesteps to the network ask at the level that the step goes to.)"""
    scheduler = make(
        "DDIMInverseScheduler",
        10,
        timestep_spacing=spacing,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    timesteps, sigmas = scheduler.timesteps.tolist(), table(scheduler)
    levels = [sigmas[max(t - 100, 0)] for t in timesteps] + [sigmas[timesteps[-1]]]
    x = START / math.hypot(1, levels[0])
    for t, s in zip(timesteps, levels, strict=False):
        z = x * math.hypot(1, s)
        d = MODEL(z, s)
        eps = (z - d) / s
        v = (eps - s * d) / math.hypot(1, s)
        output = {"epsilon": eps, "sample": d, "v_prediction": v}[prediction]
        x = scheduler.step(output, t, x).prev_sample
    grid = sorted(set(levels), reverse=True)  # the first step of `leading` has no length
    for name in ("ddim", "euler"):
        ours = kdiff.invert(MODEL, START, name, sigmas=grid, dtype=START.dtype)
        assert distance(ours, x * math.hypot(1, levels[-1])) < TOLERANCE
