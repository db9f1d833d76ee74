"""What every registered adaptive sampler must do: samplers whose number of evaluations only the run
tells. Theirs of tests/contract/test_samplers.py which count evaluations before the run are here."""

import math

import numpy as np
import pytest
import torch

import kdiff
from exact_models import Pointwise, two_humps
from kdiff.analytic import gaussian, gaussian_solution
from kdiff.lockstep import lockstep
from kdiff.samplers import REGISTRY
from kdiff.samplers.adaptive_steps import VanishingStep
from kdiff.schedules import FINALS

ADAPTIVE = [name for name, s in REGISTRY.items() if s.limit is not None]
CASES = [
    pytest.param(name, dict(options), id=f"{name}-{dict(options)}")
    for name in ADAPTIVE
    for options in ({}, *REGISTRY[name].presets.values())
]
every_case = pytest.mark.parametrize(("name", "options"), CASES)
every_sampler = pytest.mark.parametrize("name", ADAPTIVE)
MEAN, STD = torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64), 0.5
TOLERANT = [
    *[("dpm_adaptive", {"order": k}) for k in (2, 3)],
    *[("rk_adaptive", {"variable": v}) for v in ("sigma", "log_sigma")],
    *[("rk_adaptive", {"pair": p}) for p in ("bogacki_shampine", "cash_karp", "fehlberg")],
]


def drive(name, sigmas, x, model=None, **options):
    plan = kdiff.plan(sampler=name, sigmas=sigmas, options=options)
    *_, last = kdiff.drive(
        model or Pointwise(), plan, x, kdiff.Noise(range(len(x)), x.shape[1:], x.dtype)
    )
    return last


@every_case
def test_its_number_of_evaluations_is_known_after_the_run(name, options):
    s = REGISTRY[name]
    plan = kdiff.plan(Pointwise(), name, steps=6, options=options)
    assert plan.nfe is None and plan.outline is None and s.nfe(6) is None
    assert plan.limit == s.limit == s.options["limit"].default
    *states, last = kdiff.drive(Pointwise(), plan, torch.ones(2, 3), kdiff.Noise([0, 1], (3,)))
    assert last.nfe == max(last.each) and 0 < last.rounds <= last.nfe
    assert sum(len(state.x) for state in states) == sum(last.each)
    assert last.step == 6 and last.sigma == 0
    with pytest.raises(ValueError, match=f"{name} is adaptive: it takes no fixed nfe"):
        kdiff.plan(Pointwise(), name, nfe=6)


@every_sampler
def test_it_ends_at_its_limit(name):
    with pytest.raises(kdiff.TooManyEvaluations, match=f"{name} has not ended after 4 evaluations"):
        drive(name, kdiff.schedule("karras", 9), torch.ones(1, 3), limit=4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rk_adaptive", {"rtol": 0, "atol": 0}),
        ("rk_adaptive", {"rtol": 0, "atol": 1e-30}),
        ("dpm_adaptive", {"rtol": 0, "atol": 0}),
        ("dpm_adaptive", {"pcoeff": 1e30}),
    ],
    ids=str,
)
def test_what_no_step_can_satisfy_is_said(name, options):
    with pytest.raises(VanishingStep, match="no step is short enough"):
        drive(name, kdiff.schedule("karras", 9), torch.ones(2, 3), **options)


@every_case
def test_a_seed_is_the_same_sample_in_any_batch(name, options):
    def sample(**which):
        return kdiff.sample(Pointwise(), name, steps=5, options=options, **which)

    together = sample(seeds=[5, 2, 9])
    assert torch.equal(sample(seeds=[5, 2, 9], batch=2), together)
    for i, seed in enumerate([5, 2, 9]):
        assert torch.equal(sample(seed=seed)[0], together[i])


@pytest.mark.parametrize("final", FINALS)
@every_case
def test_it_solves_the_ode_on_grids_of_any_size(name, options, final):
    x = 20 * torch.tensor([[0.6, -1.1, 0.9], [-1.4, 0.2, -0.3]], dtype=torch.float64)
    for steps in (1, 2, 3, 40) if name == "paradigms" else (2, 3):
        sigmas = kdiff.schedule("karras", steps, sigma_min=0.02, sigma_max=20.0, final=final)
        last = drive(name, sigmas, x, gaussian(MEAN, STD), **options)
        exact = gaussian_solution(MEAN, STD, x, 20.0, sigmas[-1])
        assert last.x.isfinite().all() and last.x.dtype == x.dtype
        if steps == 40 or name != "paradigms":
            assert (last.x - exact).abs().max() < 0.15


@every_case
def test_upward_it_goes_back_to_where_it_came_from(name, options):
    x = torch.tensor([[0.9, -0.4, 0.6], [0.1, 0.2, 0.8]], dtype=torch.float64)
    settings = {"sigma_min": 0.02, "sigma_max": 20.0, "options": options, "dtype": torch.float64}
    latents = kdiff.invert(gaussian(MEAN, STD), x, name, steps=40, **settings)
    exact = gaussian_solution(MEAN, STD, x, 0.02, 20.0)
    assert (latents - exact).abs().max() / 20 < 0.1


@pytest.mark.parametrize(("name", "shape"), TOLERANT, ids=str)
def test_the_error_falls_with_the_tolerance(name, shape):
    model = two_humps()
    x = torch.tensor([[3.0, -9.0], [8.0, 5.0], [-20.0, 1.0]], dtype=torch.float64)

    def end(tolerance):
        given = {"rtol": tolerance, "atol": tolerance, "limit": 20_000, **shape}
        return drive(name, [20.0, 0.02], x, model, **given).x

    exact = drive("rk_adaptive", [20.0, 0.02], x, model, rtol=1e-11, atol=1e-11, limit=20_000).x
    tolerances = [1e-3, 1e-4, 1e-5, 1e-6]
    errors = [float((end(t) - exact).abs().mean()) for t in tolerances]
    slope = np.polyfit(np.log(tolerances), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.35), errors


@every_sampler
def test_in_lockstep_it_gives_the_bits_it_gives_alone(name):
    plans = [kdiff.plan(Pointwise(), one, steps=5) for one in (name, "euler", name)]
    (only,) = lockstep(Pointwise(), plans, [5, 2, 9])
    for plan, outcome in zip(plans, only.outcomes, strict=True):
        ((_, states),) = kdiff.run(Pointwise(), plan, [5, 2, 9])
        *_, last = states
        assert outcome.error is None and torch.equal(outcome.x, last.x)


@every_sampler
def test_no_graph_is_left_unless_asked_for(name):
    weight = torch.nn.Parameter(torch.tensor(0.5))
    x = torch.ones(1, 3, requires_grad=True)
    plan = kdiff.plan(sampler=name, sigmas=[3.0, 1.0, 0.5])
    for grad in (False, True):
        noise = kdiff.Noise([0], (3,))
        *_, last = kdiff.drive(lambda x, sigma: weight * x, plan, x, noise, grad=grad)
        assert last.x.requires_grad == grad
    for wrt in torch.autograd.grad(last.x.sum(), [x, weight]):
        assert wrt.abs().sum() > 0


def test_a_step_that_vanishes_is_an_error():
    def rough(x, sigma):
        return x + 1e30 * math.sin(1e9 * sigma)

    with pytest.raises(ArithmeticError, match=r"no step is short enough|has not ended"):
        drive("rk_adaptive", [3.0, 0.5], torch.ones(1, 3, dtype=torch.float64), rough, rtol=1e-12)


# --- ParaDiGMS ---


@pytest.mark.parametrize("window", [1, 3, 8, 100])
@pytest.mark.parametrize("final", FINALS)
def test_without_tolerance_paradigms_is_euler(window, final):
    sigmas = kdiff.schedule("karras", 12, final=final)
    x = 80 * torch.tensor([[0.6, -1.1], [-1.4, 0.2]], dtype=torch.float64)
    last = drive("paradigms", sigmas, x, two_humps(), tolerance=0, window=window)
    torch.testing.assert_close(
        last.x, drive("euler", sigmas, x, two_humps()).x, rtol=1e-11, atol=1e-11
    )
    assert last.rounds <= 12 and (window > 1) == (last.nfe > last.rounds)


def test_rounds_are_fewer_than_steps_and_the_error_is_within_the_tolerance():
    sigmas = kdiff.schedule("karras", 60)
    x = 80 * torch.tensor([[0.6, -1.1], [-1.4, 0.2]], dtype=torch.float64)
    exact = drive("euler", sigmas, x, two_humps()).x
    last = drive("paradigms", sigmas, x, two_humps(), tolerance=1e-3, window=30)
    assert last.rounds < 30 < 60 < last.nfe
    assert (last.x - exact).abs().max() < 3e-2


def test_the_depth_of_samplers_that_ask_once_at_a_time_is_their_evaluations():
    assert drive("heun", [3.0, 1.0, 0.0], torch.ones(1, 3)).rounds == 3
