"""Tracing: a sampler's coefficients are what it computes."""

from itertools import pairwise

import pytest
import torch

import kdiff
from kdiff.samplers import REGISTRY
from kdiff.samplers.tableau import Linear, trace
from kdiff.schedules import FINALS

MIXTURE = kdiff.analytic.GaussianMixture(
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)
START = torch.tensor([[30.0, -120], [5, 4]], dtype=torch.float64)
SETTINGS = [
    pytest.param(name, options, id=f"{name}-{options}")
    for name, s in REGISTRY.items()
    if s.linear
    for options in [{}, *({"S_churn": 9} for o in s.options if o == "S_churn")]
] + [
    pytest.param(name, options, id=f"{name}-{options}")
    for name, options in [
        ("deis", {"variable": "log_rho", "order": 4}),
        ("unipc", {"variant": "bh1", "order": 4, "lower_order_final": True}),
        ("dpmpp_3m", {"as_published": True, "lower_order_final": True}),
        ("ddim", {"variance": "sigma_hat"}),
    ]
]


def grid(final: str, steps: int = 6) -> list[float]:
    return kdiff.schedule("karras", steps, final=final)


def test_symbols_can_be_divided_by_numbers():
    assert (Linear({"x_T": 3.0, "D1": -1.0}) / 2).terms == {"x_T": 1.5, "D1": -0.5}


def test_euler_by_hand():
    """8 -> 4 -> 1 -> 0: x_1 = x_T / 2 + D1 / 2, x_2 = x_1 / 4 + 3 D2 / 4, and the end is D3."""
    tableau = trace(REGISTRY["euler"], [8.0, 4.0, 1.0, 0.0])
    assert [(row.step, row.sigma) for row in tableau.asks] == [(0, 8.0), (1, 4.0), (2, 1.0)]
    assert [row.x.terms for row in tableau.asks] == [
        {"x_T": 1.0},
        {"x_T": 0.5, "D1": 0.5},
        {"x_T": 0.125, "D1": 0.125, "D2": 0.75},
    ]
    assert tableau.result.terms == {"x_T": 0.0, "D1": 0.0, "D2": 0.0, "D3": 1.0}
    assert (tableau.nfe, list(tableau.noises)) == (3, [])


def test_heun_by_hand():
    """4 -> 2: D2 is asked at x_T / 2 + D1 / 2; x = x_T - 2 (e_1 + e_2) / 2."""
    tableau = trace(REGISTRY["heun"], [4.0, 2.0])
    assert [(row.step, row.sigma) for row in tableau.asks] == [(0, 4.0), (0, 2.0)]
    assert tableau.asks[1].x.terms == {"x_T": 0.5, "D1": 0.5}
    assert tableau.result.terms == {"x_T": 0.5, "D1": 0.0, "D2": 0.5}


def test_euler_ancestral_by_hand():
    """5 -> 3, eta = 1: sigma_up = 3 sqrt(25 - 9) / 5 = 2.4, sigma_down = 3^2 / 5 = 1.8."""
    tableau = trace(REGISTRY["euler_ancestral"], [5.0, 3.0, 0.0])
    assert tableau.noises == [(5.0, 3.0)]
    assert tableau.asks[1].x.terms == pytest.approx({"x_T": 0.36, "D1": 0.64, "n1": 2.4}, rel=1e-14)


def test_dpmpp_sde_draws_to_the_middle_and_to_the_end_of_each_step():
    """Both from its start, on one path: 8 -> 4 and 8 -> 2, then 2 -> 1 and 2 -> 0.5."""
    tableau = trace(REGISTRY["dpmpp_sde"], [8.0, 2.0, 0.5])
    assert tableau.noises == [(8.0, 4.0), (8.0, 2.0), (2.0, 1.0), (2.0, 0.5)]
    assert [row.sigma for row in tableau.asks] == [8, 4, 2, 1]


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_the_rows_reproduce_a_run(name, options, final):
    tableau = trace(REGISTRY[name], grid(final), options)
    plan = kdiff.plan(sampler=name, sigmas=grid(final), options=options)
    noise = kdiff.Noise([0, 1], (2,), torch.float64)
    *states, last = kdiff.drive(MIXTURE, plan, START, noise)

    values = {"x_T": START}
    if tableau.noises:
        draw = getattr(noise, plan.sampler.noise)
        values |= {
            f"n{i}": draw(d.s, d.t, d.draw, stream=d.stream) for i, d in enumerate(tableau.draws, 1)
        }

    def evaluate(row: Linear) -> torch.Tensor:
        return sum(c * values[symbol] for symbol, c in row.terms.items())

    assert tableau.nfe == last.nfe == len(states) == plan.nfe
    for i, (row, state) in enumerate(zip(tableau.asks, states, strict=True), 1):
        assert (row.step, row.sigma) == (state.step, state.sigma)
        torch.testing.assert_close(evaluate(row.x), state.x, rtol=1e-12, atol=1e-11)
        values[f"D{i}"] = state.denoised
    torch.testing.assert_close(evaluate(tableau.result), last.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize(("name", "options"), [p for p in SETTINGS if "reab" not in p.values])
def test_an_image_without_noise_stays_itself(name, options, final):
    """If x_T and every D are one image, so is each ask: without noises, coefficients sum to 1."""
    tableau = trace(REGISTRY[name], grid(final), options)
    for row in [*(ask.x for ask in tableau.asks), tableau.result]:
        kept = sum(c for symbol, c in row.terms.items() if symbol[0] != "n")
        assert kept == pytest.approx(1, rel=1e-12)


# Reverse diffusion keeps half of s^2 - t^2 as it is. REAB is exact for data of N(0, 1) instead.
OTHERS = ("reverse_diffusion", "reab")
SOLVERS = [n for n, s in REGISTRY.items() if s.linear and s.ode is not None and n not in OTHERS]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_constant_denoised_is_reached_exactly(name):
    """The ODE for one point D: x_t - D = (t / sigma_max) (x_T - D)."""
    for final in FINALS:
        sigmas = grid(final)
        tableau = trace(REGISTRY[name], sigmas, REGISTRY[name].ode)
        for row in tableau.asks:
            assert row.x.terms["x_T"] == pytest.approx(row.sigma / sigmas[0], rel=1e-10)
        expected = sigmas[-1] / sigmas[0]
        found = tableau.result.terms.get("x_T", 0.0)
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(
    ("name", "options", "drawn", "to_zero"),
    [
        ("euler_ancestral", {}, 6, 5),
        ("ddim", {}, 0, 0),
        ("ddim", {"variance": "sigma_hat"}, 6, 5),
        ("dpm_2_ancestral", {}, 6, 5),
        ("dpmpp_2m_sde", {}, 6, 5),
        ("dpmpp_3m_sde", {}, 6, 5),
        ("dpmpp_sde", {}, 12, 10),  # in the middle of a step, too
        ("heun", {"S_churn": 9}, 6, 6),
        ("heun", {"S_churn": 9, "S_tmin": 1, "S_tmax": 50}, 3, 2),
        ("dpmpp_2m", {}, 0, 0),
    ],
)
def test_the_number_of_noises(name, options, drawn, to_zero):
    found = [len(trace(REGISTRY[name], grid(f), options).noises) for f in ("sigma_min", "zero")]
    assert found == [drawn, to_zero]


@pytest.mark.parametrize(
    ("name", "options", "used"),
    [
        ("dpmpp_2m", {}, [1, 2, 2, 2, 2, 1]),
        ("dpmpp_2m", {"lower_order_final": True}, [1, 2, 2, 2, 2, 1]),
        ("dpmpp_3m", {}, [1, 2, 3, 3, 3, 1]),
        ("dpmpp_3m", {"lower_order_final": True}, [1, 2, 3, 3, 2, 1]),
    ],
)
def test_each_step_uses_as_many_predictions_as_its_order(name, options, used):
    """What a row has beyond (t / s) times the one before it."""
    sigmas = grid("zero")
    tableau = trace(REGISTRY[name], sigmas, options)
    rows = [*(ask.x for ask in tableau.asks), tableau.result]
    ratios = [t / s for s, t in pairwise(sigmas)]
    steps = [b - r * a for a, b, r in zip(rows[:-1], rows[1:], ratios, strict=True)]
    assert [sum(abs(c) > 1e-12 for c in step.terms.values()) for step in steps] == used


def test_linear_combinations():
    a, b = Linear({"x": 1.0, "y": 2.0}), Linear({"y": 3.0, "z": -1.0})
    assert (a + b).terms == {"x": 1.0, "y": 5.0, "z": -1.0}
    assert (a - b).terms == {"x": 1.0, "y": -1.0, "z": 1.0}
    assert (2 * a).terms == (a * 2).terms == {"x": 2.0, "y": 4.0}
    assert (-a).terms == {"x": -1.0, "y": -2.0}
    assert a.terms == {"x": 1.0, "y": 2.0}
