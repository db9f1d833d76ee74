"""Every sampler, with every option, on grids of one to five steps whose ratios go from 1 + 1e-7 to
1e12: finite, and as near to the exact solution as its formula allows."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

import kdiff
from kdiff.analytic import gaussian, gaussian_solution
from kdiff.samplers import REGISTRY, Option, Sampler
from kdiff.samplers.coefficients import usable
from kdiff.samplers.loops import ancestral_split

MEAN, STD = torch.tensor([0.3, -0.2], dtype=torch.float64), 0.5
EXACT = gaussian(MEAN, STD)

NEAR, CLOSE, WIDE = 1 + 1e-7, 1 + 1e-5, 1e6
RATIOS = [
    [1e12],
    [1e9, 1e3],
    [1e3, 1e9],
    [1e3] * 4,
    [WIDE, NEAR, WIDE],
    [NEAR, NEAR, 1e12],
    [1e12, NEAR, NEAR],
    [CLOSE, 1e9, CLOSE],
    [10, CLOSE, 10, NEAR, 10],
    [2, 1.1, NEAR, 100, 1000],
    [1.1, NEAR, NEAR, NEAR, 1e6],
]
ALL_NEAR = [[ratio] * n for n in (1, 2, 5) for ratio in (NEAR, CLOSE)]
# The issue's own grid, on which sigma_down was rounded to zero.
KNOWN = [[1e6, 1e-3, 0.0], [20291.0, 0.01, 0.0]]


def grid(first: float, ratios: list[float], final: str) -> list[float]:
    sigmas = [first / math.prod(ratios[:i]) for i in range(len(ratios) + 1)]
    return [*sigmas[:-1], 0.0] if final == "zero" else sigmas


def settings(s: Sampler) -> list[dict]:
    """Its presets, and every combination of choices with no, some and full noise."""
    numbers = {"eta": (0.0, 0.5, 1.0), "S_churn": (0.0, 8.0), "r": (0.25, 1.0)}
    numbers |= {"order": (1, 2, 3, 4, 9), "tau": (0.0, 1.0), "m": (1, 3), "stages": (3, 50)}
    numbers["gamma"] = (0.0, 0.5, 1.0)

    def known(option: Option) -> list[str]:
        return [value for value in option.choices if value != "learned"]  # by a network

    def within(option: Option) -> list[float]:
        low = -math.inf if option.low is None else option.low
        high = math.inf if option.high is None else option.high
        return [value for value in numbers.get(option.name, ()) if low <= value <= high]

    axes = {
        key: (False, True) if option.type is bool else known(option) or within(option)
        for key, option in s.options.items()
    }
    axes = {key: values for key, values in axes.items() if values}
    every = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return [*every, *map(dict, s.presets.values())]


FIXED = {n: s for n, s in REGISTRY.items() if s.limit is None}
EVERY = [pytest.param(n, o, id=f"{n}-{o}") for n, s in FIXED.items() for o in settings(s)]
# These average slopes over a step, so that a step over many octaves leaves up to half of x_s; or
# add the noise of the SDE as it is at s.
SLOPES = ("heun", "rk2", "dpm_2", "dpm_2_ancestral", "plms", "heunpp2", "restart")
SLOPES += (
    "scire2",
    "pfdiff",
    "dpm_solver_3",
    "dpm_fast",
    "annealed_langevin",
    "predictor_corrector",
    "reverse_diffusion",
)
# Of p stages, a step over many octaves is a polynomial of degree p in its ratio: only finite. Over
# many octaves the SDE's drift as it is at s leads anywhere, and so does a step that is divided by
# the score of a sample.
UNBOUNDED = ("runge_kutta", "euler_maruyama", "predictor_corrector")


def start(first: float) -> torch.Tensor:
    noise = kdiff.Noise(range(2), (2,), torch.float64).initial()
    return MEAN + math.hypot(STD, first) * noise


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "options"), EVERY)
def test_every_sampler_on_every_grid(run, name, options):
    stochastic = REGISTRY[name].stochastic(options)
    grids = [grid(1e6, ratios, final) for ratios in RATIOS for final in ("zero", "sigma_min")]
    for sigmas in [*grids, *KNOWN]:
        x = start(sigmas[0])
        found = run(EXACT, name, sigmas, x, **options)  # asks as often as it declares
        assert found.isfinite().all(), sigmas
        if name in UNBOUNDED:
            continue
        expected = gaussian_solution(MEAN, STD, x, sigmas[0], sigmas[-1])
        slopes = name in SLOPES or (name == "reab" and options.get("as_published"))
        scale = sigmas[0] if slopes else max(STD, sigmas[-1])
        bound = 60 if stochastic else 8
        assert (found - expected).abs().max() < bound * scale, sigmas


@pytest.mark.parametrize(
    ("name", "options"), [p for p in EVERY if not REGISTRY[p.values[0]].stochastic(p.values[1])]
)
def test_nearly_equal_noise_levels_change_next_to_nothing(run, name, options):
    for ratios in ALL_NEAR:
        sigmas = grid(2.0, ratios, "sigma_min")
        x = start(2.0)
        expected = gaussian_solution(MEAN, STD, x, sigmas[0], sigmas[-1])
        torch.testing.assert_close(
            run(EXACT, name, sigmas, x, **options), expected, rtol=0, atol=1e-9
        )


MULTISTEP = [("lms", {}), ("dpmpp_2m", {"solver_type": "heun"}), ("dpmpp_3m", {}), ("deis", {})]
MULTISTEP += [("deis", {"order": 4, "variable": v}) for v in ("t", "rho")]
MULTISTEP += [("unipc", {"order": k, "variant": v}) for k in (2, 3, 4) for v in ("bh1", "bh2")]


@pytest.mark.parametrize("gap", [2e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("position", [1, 3, 6])
@pytest.mark.parametrize(("name", "options"), MULTISTEP, ids=str)
def test_a_network_s_rounding_does_not_grow_between_nearly_equal_levels(
    run, name, options, position, gap
):
    """Ten steps, and one sigma more right after another one: answers that are off by 1e-6, as
    float32 networks' are, then move the result by some 1e-6 too, not 1,400 times as much."""
    sigmas = kdiff.schedule("exponential", 10, sigma_min=0.02, sigma_max=20.0, final="sigma_min")
    sigmas.insert(position + 1, sigmas[position] * (1 - gap))

    def rounded(sign):
        signs = itertools.cycle([sign, -sign])
        return lambda x, sigma: EXACT(x, sigma) + 1e-6 * next(signs)

    x = start(20.0)
    up, down = (run(rounded(sign), name, sigmas, x, **options) for sign in (1, -1))
    assert (up - down).abs().max() < 60e-6
    exact = gaussian_solution(MEAN, STD, x, sigmas[0], sigmas[-1])
    assert (up - exact).abs().max() < 0.1


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([0.0], 1),
        ([0.0, -1.0, -2.0, -3.0], 4),
        ([0.0, -6e-3, -1.0], 3),
        ([0.0, -4e-3, -1.0], 1),
        ([0.0, -1.0, -1.004, -2.0], 2),
        ([0.0, -1e9, -2e9], 3),
        ([0.0, -3.0, -3.016, -9.0], 2),
    ],
)
def test_which_predictions_are_far_enough_apart_to_tell_a_slope(nodes, expected):
    assert usable(nodes) == expected


@pytest.mark.parametrize("steps", [10, 1000])
@pytest.mark.parametrize("ends", [(0.002, 80.0), (0.03, 14.6), (0.01, 157.0)])
@pytest.mark.parametrize("schedule", ["karras", "exponential", "vp"])
def test_no_schedule_is_so_fine_that_the_order_is_lowered(schedule, ends, steps):
    """The last step is the longest against the gaps before it: down to zero, for `lms`."""
    sigmas = kdiff.schedule(schedule, steps, sigma_min=ends[0], sigma_max=ends[1])
    for i in range(3, steps):
        at, t = sigmas[i - 3 : i + 1][::-1], sigmas[i + 1]
        assert usable([(at[0] - q) / (at[0] - t) for q in at]) == 4
        if t:
            assert usable([math.log(at[0] / q) / math.log(at[0] / t) for q in at]) == 4


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("s", "t"), [(1e6, 1e-3), (80.0, 79.0), (1e12, 1e-6), (3.0, 1.0)])
def test_sigma_down_does_not_cancel(s, t, eta):
    """sigma_down^2 = t^2 (1 - eta^2 (1 - (t / s)^2)), in exact fractions."""
    r, e = Fraction(t) / Fraction(s), Fraction(eta)
    squared = Fraction(t) ** 2 * (1 - e * e * (1 - r * r))
    down, up = ancestral_split(s, t, eta)
    assert Fraction(down) ** 2 / squared == pytest.approx(1, rel=1e-14)
    assert Fraction(up) ** 2 == pytest.approx(float(Fraction(t) ** 2 - squared), rel=1e-13)
    assert down > 0


@pytest.mark.parametrize("t", [0.1, 0.3, 1e-3, 79.99999])
def test_without_noise_sigma_down_is_the_grids_own_to_the_bit(t):
    assert ancestral_split(80.0, t, 0.0) == (t, 0.0)


@pytest.mark.parametrize(
    ("s", "t"), [(1e12, 1e-6), (1e6, 1e6 / NEAR), (1e-17, 1e-18), (1e18, 1e-18)]
)
def test_brownian_noise_has_unit_variance_over_any_interval(s, t):
    noise = kdiff.Noise([0, 1], (20_000,), torch.float64).brownian(s, t)
    assert float(noise.std()) == pytest.approx(1, abs=5 / math.sqrt(2 * 40_000))
    assert abs(float(noise.mean())) < 5 / math.sqrt(40_000)
