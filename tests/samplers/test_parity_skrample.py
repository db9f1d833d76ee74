"""Multistep samplers against skrample, through values that tools/make_zoo_skrample_golden.py made
with it in float64. It lowers the order of the last steps in every run.

Where it has another method it is written out here, so that what differs is known, and checked.
docs/parity.md says why."""

import json
import math
from functools import partial
from itertools import pairwise

import pytest
import torch

import kdiff
import places
from kdiff.analytic import GaussianMixture
from kdiff.samplers import REGISTRY, Walk
from kdiff.samplers.adams import adams_bashforth
from kdiff.samplers.coefficients import coefficients, combine, orders
from kdiff.samplers.exponential import exact_moments, nodes, second_order, third_order

GOLDEN = json.loads((places.GOLDEN / "zoo_skrample.json").read_text())
tensor = partial(torch.tensor, dtype=torch.float64)
MODEL = GaussianMixture(**{k: tensor(v) for k, v in GOLDEN["model"].items()})
EXACT = 1e-11  # the stored values have 13 digits


def pseudo_noise(s, t, draw=0, *, stream=""):
    """As in tools/golden_problem.py."""
    index = torch.arange(1, 7, dtype=torch.float64)
    return torch.sin(index * (1 + math.log(s)) + math.log(t) / index + 0.7 * draw).view(2, 3)


def solution(run, sigmas):
    walk = Walk(run(sigmas[0] * tensor(GOLDEN["start"]), sigmas))
    while walk.ask is not None:
        walk.answer(MODEL(walk.ask.x, walk.ask.sigma))
    return walk.result


def distance(run, sample) -> float:
    """The largest difference, relative to the largest component."""
    expected = tensor(sample["result"])
    found = solution(run, GOLDEN["grids"][sample["grid"]])
    return float((found - expected).abs().max() / expected.abs().max())


def ours(name, **options):
    return lambda x, sigmas: REGISTRY[name].start(x, sigmas, pseudo_noise, options)


def cases(name, wanted=lambda order, space, eta: True):
    return [
        pytest.param(sample, id="-".join([*map(str, sample["options"].values()), sample["grid"]]))
        for sample in GOLDEN["samples"]
        if sample["name"] == name and wanted(*settings(sample))
    ]


def settings(sample):
    options = sample["options"]
    return options.get("order"), options["space"], options.get("stochasticity", 0)


# --- what skrample has that differs ---


def even(at, t) -> list[float]:
    """Adams-Bashforth's weights of an even grid."""
    return adams_bashforth(len(at))


def exponential(at, t, adjust=lambda m: m) -> list[float]:
    """The exact weights of D as a polynomial in log sigma, with sum 1."""
    m = exact_moments(at[0], t, len(at))
    return [c / m[0] for c in coefficients(nodes([(0, q) for q in at], at[0], t), adjust(m))]


def dpm_solver(at, t) -> list[float]:
    """Those with the midpoint rule at order 2, and half the third moment at order 3."""
    return exponential(at, t, lambda m: third_order(second_order(m, "midpoint"), True))


def theirs(x, sigmas, order, space, weights, *, corrector=False, eta=0.0, lower=True):
    """Euler's step with a weighted sum of the last eps, or D, for the newest; down to
    sqrt(t^2 - up^2), then noise of size up = eta t sqrt(1 - (t / s)^2)."""
    history, correct = [], None
    for (s, t), k in zip(pairwise(sigmas), orders(sigmas, order, lower), strict=True):
        d = yield x, s
        prediction = d if space == "x0" else (x - d) / s
        if correct:
            x = correct(prediction)
        history = [(prediction, s), *history]
        up = eta * t * math.sqrt(1 - (t / s) ** 2)
        down = math.sqrt(t**2 - up**2)

        def take(used, x=x, s=s, t=t, down=down):
            mean = combine(weights([q for _, q in used], t), [p for p, _ in used])
            return x + (down - s) * (mean if space == "eps" else (x - mean) / s)

        if corrector:
            correct = partial(corrected, take, history[:k], t)
        x = take(history[:k])
        if up:
            x = x + up * pseudo_noise(s, t)
    return x


def corrected(take, used, t, prediction):
    return take([*used, (prediction, t)])


def written_out(sample, weights, **more) -> float:
    order, space, _ = settings(sample)
    return distance(partial(theirs, order=order, space=space, weights=weights, **more), sample)


@pytest.mark.parametrize(
    ("weights", "space", "corrector"),
    [
        (even, "x0", False),
        (even, "eps", False),
        (exponential, "eps", False),
        (exponential, "eps", True),
        (dpm_solver, "x0", False),
        (dpm_solver, "eps", False),
    ],
)
def test_what_differs_is_of_order_2(weights, space, corrector):
    """Where it claims 3, without lowering the order of the last steps."""

    def solve(run, steps):
        return solution(run, kdiff.schedules.karras(steps + 1, 0.05, 20.0).tolist())

    exact = solve(ours("dpmpp_km", order=6), 1600)
    run = partial(theirs, order=3, space=space, weights=weights, corrector=corrector, lower=False)
    errors = [float((solve(run, steps) - exact).abs().max()) for steps in (200, 400)]
    assert 1.9 < math.log2(errors[0] / errors[1]) < 2.1


# --- DPM ---


def ours_has(order, space, eta):
    return order == 1 or (order == 2 and eta != 0.5)


@pytest.mark.parametrize("sample", cases("DPM", ours_has))
def test_dpm(sample):
    order, space, eta = settings(sample)
    if order == 1:
        run = ours("ddim", eta=eta)
    elif eta:
        run = ours("dpmpp_2m_sde", eta=eta)
    else:
        name = "dpmpp_2m" if space == "x0" else "dpm_solver_multistep"
        run = ours(name, lower_order_final=True)
    assert distance(run, sample) < EXACT


@pytest.mark.parametrize("sample", cases("DPM", lambda order, space, eta: order == 3))
def test_dpm_of_order_3(sample):
    """It lacks the factor 2, and its steps of order 2 are the midpoint rule's. On eps it has the
    weights of D; in 4 steps that does not show, as none of them is of order 3."""
    on_eps = sample["options"]["space"] == "eps"
    options = {"as_published": True, "lower_order_final": True}
    nearest = (
        ours("dpm_solver_multistep", order=3, **options) if on_eps else ours("dpmpp_3m", **options)
    )
    assert written_out(sample, dpm_solver) < EXACT
    differs = distance(nearest, sample)
    assert differs < EXACT if on_eps and sample["grid"] == "4, zero" else differs > 5e-3


@pytest.mark.parametrize("sample", cases("DPM", lambda order, space, eta: (order, eta) == (2, 0.5)))
def test_dpm_with_half_the_noise(sample):
    """It goes to sigma_down by the ODE; `dpmpp_2m_sde` solves the SDE of that eta."""
    assert written_out(sample, dpm_solver, eta=0.5) < EXACT
    assert distance(ours("dpmpp_2m_sde", eta=0.5), sample) > 0.1


# --- Adams ---


@pytest.mark.parametrize("sample", cases("Adams"))
def test_adams(sample):
    """It has the weights of an even grid on any grid, on D too."""
    order, space, _ = settings(sample)
    options = {"order": order, "lower_order_final": True}
    nearest = (
        ours("dpmpp_km", **options) if space == "x0" else ours("deis", variable="rho", **options)
    )
    assert written_out(sample, even) < EXACT
    differs = distance(nearest, sample)
    assert differs < EXACT if order == 1 else differs > 0.04


# --- UniP and UniPC ---


def either(space):
    return [
        pytest.param(name == "UniPC", *case.values, id=f"{name}-{case.id}")
        for name in ("UniP", "UniPC")
        for case in cases(name, lambda order, its, eta: its == space)
    ]


@pytest.mark.parametrize(("corrector", "sample"), either("x0"))
def test_unipc_on_x0(corrector, sample):
    options = {"order": sample["options"]["order"], "lower_order_final": True}
    run = ours("unipc", variant="vary_coeff", corrector=corrector, **options)
    assert distance(run, sample) < EXACT
    if not corrector:
        assert distance(ours("dpmpp_km", **options), sample) < EXACT


@pytest.mark.parametrize(("corrector", "sample"), either("eps"))
def test_unipc_on_eps(corrector, sample):
    """It has the weights of D there too."""
    order = sample["options"]["order"]
    nearest = ours("deis", order=order, lower_order_final=True)
    assert written_out(sample, exponential, corrector=corrector) < EXACT
    differs = distance(nearest, sample)
    assert differs < EXACT if order == 1 and not corrector else differs > 0.02
