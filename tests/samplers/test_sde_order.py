"""The declared strong and weak orders of samplers that draw noise, on one Brownian path."""

import pytest

from kdiff.samplers import REGISTRY
from sde_orders import orders

# By default, one draws no noise, and the other is exact on this problem.
WITH_NOISE = {"ddim": {"eta": 1.0}, "analytic_dpm": {"sigma_data": 0.3}}
SOLVERS = [name for name, s in REGISTRY.items() if s.strong is not None]
# Churn, restarts and Langevin steps at one level: none of them is a step of an SDE.
NO_SDE = {"euler", "heun", "dpm_2", "restart", "annealed_langevin", "predictor_corrector"}


@pytest.mark.parametrize("name", SOLVERS)
def test_the_orders_are_the_declared_ones(name):
    declared = REGISTRY[name].strong, REGISTRY[name].weak
    assert orders(name, WITH_NOISE.get(name, {})) == pytest.approx(declared, abs=0.3)


def test_every_sampler_of_an_sde_declares_both():
    assert {name for name, s in REGISTRY.items() if s.noise} == {*SOLVERS} | NO_SDE
    assert all((s.strong is None) == (s.weak is None) for s in REGISTRY.values())
