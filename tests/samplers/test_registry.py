"""What samplers declare of themselves, and how they are found."""

import collections
import math

import pytest
import torch

import kdiff
from kdiff.analytic import GaussianMixture
from kdiff.names import normalise
from kdiff.samplers import REGISTRY, Sampler, UnknownName, resolve
from kdiff.schedules import FINALS, SCHEDULES

MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)
START = torch.tensor([[0.3, -1.2], [1.5, 0.4]], dtype=torch.float64)


def discrete_model() -> kdiff.Denoiser:
    """MIXTURE as a network that predicts eps at 1000 timesteps."""
    table = torch.tensor(kdiff.precond("eps").sigmas, dtype=torch.float64).log()

    def network(x, t):
        low = t[0].floor().int()
        log_sigma = torch.lerp(table[low], table[(low + 1).clamp(max=999)], t[0].double() % 1)
        sigma = log_sigma.exp().item()
        x = x * math.hypot(1, sigma)
        return (x - MIXTURE(x, sigma)) / sigma

    return kdiff.Denoiser(network, "eps", shape=(2,))


DISCRETE_MODEL = discrete_model()
LANGEVIN = ("annealed_langevin", "predictor_corrector")  # first stir x at the level where it is


def every_setting() -> list:
    """Each sampler by default, and as an ODE solver if it has settings for that."""
    return [
        pytest.param(name, dict(options), id=f"{name}-{dict(options)}")
        for name, s in REGISTRY.items()
        if s.limit is None
        for options in ([{}, s.ode] if s.ode else [{}])
    ]


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize(("name", "options"), every_setting())
def test_the_evaluations_are_those_declared(run, name, options, final):
    for steps in (1, 2, 3, 4, 7, 20):
        asked = []

        def count(x, sigma, asked=asked):
            asked.append(sigma)
            return MIXTURE(x, sigma)

        sigmas = kdiff.schedule("karras", steps, final=final)
        result = run(count, name, sigmas, sigmas[0] * START, **options)
        assert len(asked) == REGISTRY[name].nfe(steps, final, options)
        assert len(asked) == kdiff.plan(sampler=name, sigmas=sigmas, options=options).nfe
        assert asked[0] == sigmas[0]
        assert min(asked) > 0 and max(asked) == asked[0]
        assert result.isfinite().all()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("name", "options"), every_setting())
def test_few_steps_are_finite_on_every_schedule(run, name, options, schedule):
    for steps in (1, 2, 3):
        for final in FINALS:
            sigmas = kdiff.schedule(schedule, steps, DISCRETE_MODEL, final=final)
            x = run(DISCRETE_MODEL, name, sigmas, sigmas[0] * START, **options)
            assert x.isfinite().all(), (steps, final)


@pytest.mark.parametrize(
    ("name", "options"), [p for p in every_setting() if p.values[0] not in LANGEVIN]
)
def test_a_step_to_zero_gives_the_denoised(run, name, options):
    result = run(MIXTURE, name, [7.0, 0.0], 7 * START, **options)
    torch.testing.assert_close(result, MIXTURE(7 * START, 7.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize("name", [n for n, s in REGISTRY.items() if s.limit is None])
def test_steps_is_the_inverse_of_nfe(name, final):
    s = REGISTRY[name]
    least = s.nfe(1, final)
    for nfe in range(least, 42):
        steps = s.steps(nfe, final)
        assert s.nfe(steps, final) <= nfe < s.nfe(steps + 1, final)
        assert s.steps(s.nfe(steps, final), final) == steps
    with pytest.raises(ValueError, match=f"nfe of {name} must be a whole number, at least {least}"):
        s.steps(least - 1, final)


def test_restarts_cost_what_is_published():
    """43 evaluations on CIFAR-10, in 18 steps, and 203 on ImageNet-64, in 36 (Xu et al. 2023)."""
    s = REGISTRY["restart"]
    for name, steps, nfe in [("Restart CIFAR-10", 18, 43), ("Restart ImageNet-64", 36, 203)]:
        assert s.nfe(steps, "zero", s.presets[name]) == nfe


def test_the_table_of_evaluations():
    """k-diffusion's Heun and DPM2 take 2 n - 1 for n steps down to zero; PLMS n + 1."""
    for name in ("heun", "dpm_2", "dpmpp_2s_ancestral", "dpmpp_sde", "dpm_2_ancestral"):
        assert [REGISTRY[name].nfe(n) for n in (1, 2, 18)] == [1, 3, 35]
        assert [REGISTRY[name].nfe(n, "sigma_min") for n in (1, 2, 18)] == [2, 4, 36]
    assert [REGISTRY["plms"].nfe(n) for n in (1, 2, 50)] == [1, 3, 51]
    for name in ("euler", "ddim", "lms", "deis", "ipndm", "dpmpp_2m", "dpmpp_3m_sde", "unipc"):
        assert [REGISTRY[name].nfe(n) for n in (1, 2, 50)] == [1, 2, 50]


@pytest.mark.parametrize(
    ("name", "sampler", "options", "schedule"),
    [
        ("dpmpp_2m", "dpmpp_2m", {}, None),
        ("sample_dpmpp_2m", "dpmpp_2m", {}, None),
        ("DPM++ 2M", "dpmpp_2m", {}, None),
        ("DPM++ 2M Karras", "dpmpp_2m", {}, "karras"),
        ("dpm++2m karras", "dpmpp_2m", {}, "karras"),
        ("  DPM++_2M-KARRAS ", "dpmpp_2m", {}, "karras"),
        ("dpmpp_2m polyexponential", "dpmpp_2m", {}, "polyexponential"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m", {"lower_order_final": True}, None),
        ("DPMSolverSinglestepScheduler", "dpmpp_2s_ancestral", {"eta": 0.0}, None),
        ("DPM++ 2S", "dpmpp_2s_ancestral", {"eta": 0.0}, None),
        ("DPM++ 2M Heun", "dpmpp_2m", {"solver_type": "heun"}, None),
        ("DPM++ 2M SDE", "dpmpp_2m_sde", {}, None),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde", {}, "karras"),
        ("DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde", {"solver_type": "heun"}, "exponential"),
        ("DPM++ 3M SDE Exponential", "dpmpp_3m_sde", {}, "exponential"),
        ("DPM++ SDE Karras", "dpmpp_sde", {}, "karras"),
        ("DPM++ 2S a Karras", "dpmpp_2s_ancestral", {}, "karras"),
        ("Euler", "euler", {}, None),
        ("Euler a", "euler_ancestral", {}, None),
        ("sample_euler_ancestral", "euler_ancestral", {}, None),
        ("EulerAncestralDiscreteScheduler", "euler_ancestral", {}, None),
        ("EulerDiscreteScheduler", "euler", {}, None),
        ("Heun", "heun", {}, None),
        ("HeunDiscreteScheduler", "heun", {}, None),
        ("DPM2", "dpm_2", {}, None),
        ("DPM2 a Karras", "dpm_2_ancestral", {}, "karras"),
        ("KDPM2AncestralDiscreteScheduler", "dpm_2_ancestral", {}, None),
        ("LMS Karras", "lms", {}, "karras"),
        ("sample_lms", "lms", {}, None),
        ("DDIM", "ddim", {}, None),
        ("DDIMScheduler", "ddim", {}, None),
        ("DDPMScheduler", "ddim", {"eta": 1.0}, None),
        ("PLMS", "plms", {}, None),
        ("PNDMScheduler", "plms", {}, None),
        ("UniPC", "unipc", {}, None),
        ("uni_pc_bh2", "unipc", {"variant": "bh2"}, None),
        (
            "UniPCMultistepScheduler",
            "unipc",
            {"order": 2, "lower_order_final": True},
            None,
        ),
        (
            "DEISMultistepScheduler",
            "deis",
            {"order": 2, "variable": "log_rho", "lower_order_final": True},
            None,
        ),
        ("IPNDMScheduler", "ipndm", {}, None),
        ("res_multistep", "dpmpp_2m", {"solver_type": "heun"}, None),
        ("res_multistep_ancestral", "dpmpp_2m_sde", {"solver_type": "heun"}, None),
        ("res_3m", "dpmpp_3m", {}, None),
        ("exponential_adams", "dpmpp_km", {}, None),
        ("exponential_adams_eps", "deis", {}, None),
        ("REABSampler", "reab", {}, None),
        ("DPMSolverSDEScheduler", "dpmpp_sde", {}, None),
        ("ER SDE", "er_sde", {}, None),
        ("seeds_2", "seeds_2", {}, None),
        ("sample_euler_ancestral_RF", "euler_ancestral_flow", {}, None),
        ("Restart", "restart", {}, None),
        ("Restart CIFAR-10", "restart", REGISTRY["restart"].presets["Restart CIFAR-10"], None),
    ],
)
def test_names(name, sampler, options, schedule):
    found = resolve(name)
    assert (found.sampler.name, found.schedule) == (sampler, schedule)
    defaults = found.sampler.with_defaults()
    assert found.sampler.with_defaults(found.options) == defaults | options


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("eular", "euler"),
        ("dpmpp_2n", "dpmpp_2m"),
        ("DPM++ 2M Karas", "DPM\\+\\+ 2M"),
        ("unipcc", "uni_pc"),
        ("zzz", "there is euler, "),
        ("", "there is euler, "),
        ("Karras", "unknown sampler .Karras."),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name, nearest):
    with pytest.raises(UnknownName, match=nearest):
        resolve(name)


def all_names() -> list[tuple[str, str]]:
    return [
        (alias, s.name)
        for s in REGISTRY.values()
        for alias in (s.name, f"sample_{s.name}", *s.aliases, *s.presets)
    ]


def test_no_two_samplers_claim_a_name():
    owners = collections.defaultdict(set)
    for alias, owner in all_names():
        owners[normalise(alias)].add(owner)
    assert [(alias, sorted(who)) for alias, who in owners.items() if len(who) > 1] == []


@pytest.mark.parametrize(("alias", "owner"), all_names())
def test_every_alias_leads_to_its_sampler(alias, owner):
    found = resolve(alias)
    assert (found.sampler.name, found.schedule) == (owner, None)
    assert dict(found.options) == REGISTRY[owner].presets.get(alias, {})
    assert resolve(f"{alias} Exponential").schedule == "exponential"


def test_the_scheduler_aliases_are_classes_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    classes = [alias for alias, _ in all_names() if alias.endswith("Scheduler")]
    assert len(classes) > 10
    assert [name for name in classes if not hasattr(diffusers, name)] == []


@pytest.mark.parametrize("s", REGISTRY.values(), ids=lambda s: s.name)
def test_every_sampler_says_what_it_is(s: Sampler):
    assert s.paper and s.function.__doc__
    assert all(option.help for option in s.options.values())
    assert (s.noise is None) == (s.ode == {})
    assert s.ode is None or not s.stochastic(s.ode)
    assert s.with_defaults() == {k: o.parse(str(o.default)) for k, o in s.options.items()}
    for options in s.presets.values():
        assert s.with_defaults(options).items() >= options.items()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("euler", {}, False),
        ("euler", {"S_churn": 10}, True),
        ("euler_ancestral", {}, True),
        ("euler_ancestral", {"eta": 0}, False),
        ("ddim", {}, False),
        ("ddim", {"eta": 0.2}, True),
        ("ddim", {"variance": "sigma_hat"}, True),
        ("dpmpp_2m", {}, False),
        ("dpmpp_sde", {}, True),
    ],
)
def test_stochastic(name, options, expected):
    assert REGISTRY[name].stochastic(options) is expected
