"""The declared strong and weak orders of samplers that draw noise, on one Brownian path."""

import pytest

from kdiff.samplers import REGISTRY
from sde_orders import orders

# By default, these draw no noise, but for analytic_dpm, which is exact on this problem.
WITH_NOISE = {name: {"eta": 1.0} for name in ("ddim", "dpmpp_singlestep")}
WITH_NOISE |= {"dpmpp_km": {"eta": 1.0, "order": 2}, "analytic_dpm": {"sigma_data": 0.3}}
SOLVERS = [name for name, s in REGISTRY.items() if s.strong is not None]
# Churn, restarts, Langevin steps at one level, and jumps to the data and back are no steps of an
# SDE. Where SA-Solver's noise begins and ends, and the orders of `dpm_fast`, depend on the grid.
NO_SDE = {"euler", "heun", "rk2", "dpm_2", "heunpp2", "restart", "annealed_langevin"}
NO_SDE |= {"predictor_corrector", "consistency", "tcd", "ctm"}
NO_SDE |= {"sa_solver", "sa_solver_pece", "dpm_fast", "dpm_adaptive"}


@pytest.mark.parametrize("name", SOLVERS)
def test_the_orders_are_the_declared_ones(name):
    s = REGISTRY[name]
    declared = s.sde_orders(s.with_defaults(WITH_NOISE.get(name, {})))
    assert orders(name, WITH_NOISE.get(name, {})) == pytest.approx(declared, abs=0.3)


def test_every_sampler_of_an_sde_declares_both():
    assert {name for name, s in REGISTRY.items() if s.noise} == {*SOLVERS} | NO_SDE
    assert all((s.strong is None) == (s.weak is None) for s in REGISTRY.values())
