"""Noise levels of the schedulers in diffusers' folders, against diffusers' own."""

import diffusers
import pytest
import torch

import kdiff
from kdiff.checkpoints.diffusers_scheduler import FLOW_END, precond_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.01, 0.02, 0.03], "num_train_timesteps": 3},
        {"num_train_timesteps": 50, "beta_end": 0.4},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_betas(kind, config):
    scheduler = getattr(diffusers, kind)(**config)
    a = scheduler.alphas_cumprod.double()
    sigmas = torch.tensor(precond_of(scheduler.config).sigmas, dtype=torch.float64)
    assert torch.allclose(sigmas, ((1 - a) / a).sqrt(), rtol=1e-14, atol=0)


def test_zero_terminal_snr():
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    found = precond_of(scheduler.config)
    a = scheduler.alphas_cumprod.double()
    assert a[-1] == 0
    assert found.sigmas[-1] == found.sigma_end == pytest.approx(2**20)
    assert found.sigma_max == found.sigmas[-2] == pytest.approx((1 / a[-2] - 1).sqrt().item())
    assert kdiff.schedule("trailing", 10, found)[0] == pytest.approx(2**20)
    # eps is useless at sigma = infinity, so the range is the same as for all eps models.
    noise = precond_of({**scheduler.config, "prediction_type": "epsilon"})
    assert noise.sigmas == found.sigmas
    assert noise.sigma_max == max(s for s in found.sigmas if s <= 160)
    assert kdiff.schedule("trailing", 10, noise)[0] == pytest.approx(noise.sigma_max)


def test_a_zero_terminal_snr_that_comes_late():
    """The timestep before is above 2^20 already."""
    betas = [0.5, 0.9, 1 - 1e-7, 1 - 1e-7, 1.0]
    found = precond_of({"trained_betas": betas, "num_train_timesteps": 5})
    assert found.sigmas[-1] == pytest.approx(2 * found.sigmas[-2])


def test_flow_noise_levels():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    t = scheduler.sigmas.double().flip(0)
    found = precond_of(scheduler.config)
    expected = (t / (1 - t))[:-1]
    assert torch.allclose(torch.tensor(found.sigmas[:-1], dtype=torch.float64), expected, rtol=1e-3)
    assert found.sigmas[-1] == pytest.approx(3 / FLOW_END, rel=1e-5)
    solver = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    assert precond_of(solver.config).sigmas == found.sigmas
