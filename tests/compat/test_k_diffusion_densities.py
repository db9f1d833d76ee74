"""k-diffusion's distributions of training noise levels, in `kdiff.compat.k_diffusion`, against what
tools/make_k_diffusion_programs_golden.py stored, and against their own quantiles."""

import math
import types

import numpy as np
import pytest
import torch
from scipy import stats

from k_diffusion_golden import DTYPES, GOLDEN
from kdiff.compat import k_diffusion as K


@pytest.mark.parametrize("case", GOLDEN["draws"], ids=lambda c: f"{c['name']}-{c['dtype']}")
def test_densities_draw_the_same_numbers(case):
    dtype, strata = DTYPES[case["dtype"]], case["strata"]
    torch.manual_seed(1)
    with K.utils.enable_stratified(*(strata or (0, 1)), disable=strata is None):
        values = getattr(K.utils, case["name"])([2, 5], **case["settings"], dtype=dtype)
    assert values.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    if case["name"] == "rand_log_normal":
        tolerance = max(tolerance, 3e-7)  # k-diffusion rounds loc and scale to float32
    expected = torch.tensor(case["values"], dtype=torch.float64)
    torch.testing.assert_close(values.double(), expected, rtol=tolerance, atol=0)


def truncated(law, low, high):
    a, b = law.cdf(low), law.cdf(high)
    return lambda sigma: (law.cdf(sigma) - a) / (b - a)


def split(sigma, loc=-1.2, left=1.0, right=0.4):
    z = np.log(sigma) - loc
    below = 2 * left * stats.norm.cdf(np.minimum(z, 0) / left)
    return (below + 2 * right * (stats.norm.cdf(np.maximum(z, 0) / right) - 0.5)) / (left + right)


QUANTILES = {
    "rand_log_normal": ({"loc": -1.2, "scale": 1.2}, stats.lognorm(1.2, scale=math.exp(-1.2)).cdf),
    "rand_log_logistic": (
        {"loc": -0.7, "scale": 0.5, "min_value": 0.1, "max_value": 9.0},
        truncated(stats.fisk(2.0, scale=math.exp(-0.7)), 0.1, 9.0),
    ),
    "rand_log_uniform": (
        {"min_value": 0.01, "max_value": 80.0},
        stats.loguniform(0.01, 80.0).cdf,
    ),
    "rand_v_diffusion": ({"sigma_data": 0.5}, lambda s: np.arctan(s / 0.5) * 2 / np.pi),
    "rand_split_log_normal": ({"loc": -1.2, "scale_1": 1.0, "scale_2": 0.4}, split),
    # Without a shift this is the cosine schedule: v_diffusion, truncated to its ends.
    "rand_cosine_interpolated": (
        {"image_d": 64, "noise_d_low": 64, "noise_d_high": 64, "sigma_data": 0.5},
        lambda s: np.arctan(s / 0.5) * 2 / np.pi,
    ),
}


@pytest.mark.parametrize("name", QUANTILES)
def test_densities_have_their_quantiles(name):
    settings, cdf = QUANTILES[name]
    torch.manual_seed(0)
    values = getattr(K.utils, name)([20_000], **settings, dtype=torch.float64)
    assert stats.kstest(cdf(values.numpy()), "uniform").pvalue > 0.01
    if name != "rand_split_log_normal":
        with K.utils.enable_stratified():
            values = getattr(K.utils, name)([1000], **settings, dtype=torch.float64)
        ranks = np.sort(cdf(values.numpy()))
        assert np.abs(ranks - (np.arange(1000) + 0.5) / 1000).max() < 2.5e-3


def test_strata_of_processes_are_those_of_one():
    accelerator = types.SimpleNamespace(
        process_index=1,
        num_processes=2,
        step=3,
        gradient_state=types.SimpleNamespace(num_steps=2),
    )
    with K.utils.enable_stratified_accelerate(accelerator):
        u = K.utils.stratified_with_settings([5], dtype=torch.float64)
    assert torch.equal((u * 20).floor() % 4, torch.full([5], 3.0, dtype=torch.float64))
    assert not vars(K.utils.stratified_settings)
    with pytest.raises(ValueError, match="group must be from 0"):
        K.utils.stratified_uniform([3], 2, 2)
