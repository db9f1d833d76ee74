"""The variance that a network has learned: DDPM's steps with it, and its way through a run."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

import kdiff
from diffusers_parity import MODEL, START, TOLERANCE, distance, draws
from kdiff.betas import alphas_cumprod, sigmas_of
from kdiff.lockstep import lockstep
from kdiff.samplers import REGISTRY, Ask
from kdiff.samplers.tableau import trace

LEARNED = {"variance": "learned"}
TABLE = sigmas_of(alphas_cumprod("linear"))
TIMESTEPS = range(900, -1, -100)  # diffusers' leading ones
GRID = [*(TABLE[t] for t in TIMESTEPS), 0.0]
NULL = 3


def network(z, t, labels=None):
    """eps of the exact model, which labels shift, and a v from -1.2 to 1.2."""
    sigma = torch.tensor(TABLE, dtype=z.dtype)[t.flatten()[0]].item()
    x = z * math.hypot(1, sigma)
    shift = 0 if labels is None else 0.1 * labels[:, None]
    d = MODEL(x.double(), sigma).to(x) + shift
    return torch.cat([(x - d) / sigma, 1.2 * torch.sin(x + 3 * t.flatten()[0] + shift)], dim=1)


def model(f=network, **settings):
    settings = {"shape": (3,), "round": True, "classes": 4, "labels": None, **settings}
    null = {"null_class": NULL} if settings["classes"] else {}
    return kdiff.wrap(f, "eps", **null, **settings)


def plan(**settings):
    return kdiff.plan(sampler="ddpm", sigmas=GRID, **{"options": LEARNED, **settings})


def with_their_noise():
    """From START, with the noises that the other side draws."""
    noise = draws()
    source = SimpleNamespace(white=lambda s, t: next(noise))
    *_, last = kdiff.drive(model(classes=()), plan(), GRID[0] * START, source)
    return last.x


# --- the formula ---


def test_it_is_diffusers_learned_range(make):
    scheduler = make("DDPMScheduler", 10, clip_sample=False, variance_type="learned_range")
    assert scheduler.timesteps.tolist() == list(TIMESTEPS)
    x = START * GRID[0] / math.hypot(1, GRID[0])
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(2)), t, x).prev_sample
    assert distance(with_their_noise(), x) < TOLERANCE


def test_it_is_guided_diffusions_formula():
    """q's posterior with the betas of the timesteps that are left, and log variances mixed."""
    noise, z = draws(), START * GRID[0] / math.hypot(1, GRID[0])
    a = [alphas_cumprod("linear")[t] for t in TIMESTEPS]
    for i, t in enumerate(TIMESTEPS):
        before = a[i + 1] if i + 1 < len(a) else 1.0
        beta = 1 - a[i] / before
        eps, v = network(z, torch.tensor([t, t])).chunk(2, dim=1)
        x0 = (z - math.sqrt(1 - a[i]) * eps) / math.sqrt(a[i])
        mean = beta * math.sqrt(before) / (1 - a[i]) * x0
        mean = mean + (1 - before) * math.sqrt(1 - beta) / (1 - a[i]) * z
        if i + 1 < len(a):
            small, share = beta * (1 - before) / (1 - a[i]), (v + 1) / 2
            log_variance = share * math.log(beta) + (1 - share) * math.log(small)
            mean = mean + torch.exp(0.5 * log_variance) * next(noise)
        z = mean
    assert distance(with_their_noise(), z) < TOLERANCE


@pytest.mark.parametrize(
    ("v", "options"), [(-1, {"eta": 1.0}), (1, {"variance": "sigma_hat"})], ids=str
)
def test_its_ends_are_the_fixed_variances(v, options):
    def constant(z, t, labels=None):
        output = network(z, t, labels)
        return torch.cat([output[:, :3], torch.full_like(output[:, 3:], v)], dim=1)

    found, fixed = (sampled(model(constant), options=o) for o in (LEARNED, options))
    assert distance(found, fixed) < 1e-12


# --- its way through a run ---

LABELS = torch.tensor([0, 1, 2])


def sampled(some_model, labels=LABELS, options=LEARNED, **settings):
    settings = {"seeds": [3, 4, 5], "sigmas": GRID, "dtype": torch.float64, **settings}
    return kdiff.sample(some_model, "ddpm", options=options, class_labels=labels, **settings)


def by_hand(weight=1.0):
    """D guided by classifier-free guidance, and v of the conditional one."""
    noise = kdiff.Noise([3, 4, 5], (3,), torch.float64)
    x = GRID[0] * noise.initial()
    for s, t in pairwise(GRID):
        z, step = x / math.hypot(1, s), torch.full((3,), TABLE.index(s))
        (c, v), (u, _) = (network(z, step, k).chunk(2, 1) for k in (LABELS, LABELS * 0 + NULL))
        d = x - s * (u + weight * (c - u))
        x = (t / s) ** 2 * x + (1 - (t / s) ** 2) * d
        if t > 0:
            small, large = (s**2 - t**2) * t**2 / s**2, (s**2 - t**2) * (1 + t**2) / (1 + s**2)
            share = (v + 1) / 2
            variance = torch.exp(share * math.log(large) + (1 - share) * math.log(small))
            x = x + variance.sqrt() * noise.white(s, t)
    return x


@pytest.mark.parametrize("settings", [{}, {"deterministic": True}, {"batch": 2}], ids=str)
def test_a_run(settings):
    assert distance(sampled(model(), **settings), by_hand()) < 1e-12


def test_one_evaluation_gives_both():
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return network(*arguments)

    sampled(model(counted))
    assert len(calls) == plan().nfe == len(GRID) - 1


@pytest.mark.parametrize("around", [[], ["interval:low=0:high=1000"]], ids=str)
def test_guided_runs_take_the_conditional_variance(around):
    calls = []

    def counted(*arguments):
        calls.append(len(arguments[0]))
        return network(*arguments)

    found = sampled(model(counted), guide=["cfg:scale=3", *around])
    assert distance(found, by_hand(3)) < 1e-12
    assert calls == [6] * (len(GRID) - 1)  # c and u in one call


def test_guidance_that_asks_without_class_only_takes_that_variance():
    assert distance(sampled(kdiff.guide(model(), "cfg:scale=0")), by_hand(0)) > 0.01
    none = sampled(model(), LABELS * 0 - 1)
    assert distance(sampled(kdiff.guide(model(), "cfg:scale=0")), none) < 1e-12


def test_an_edit_that_guides():
    edit = "apg:scale=3:momentum=0:norm=0:eta=1"
    assert distance(sampled(model(), edits=edit), by_hand(3)) < 1e-12


def test_in_lockstep():
    plans = [plan(), plan(options={"eta": 1.0}), plan()]
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return network(*arguments)

    (made,) = lockstep(
        model(counted), plans, [3, 4, 5], dtype=torch.float64, cond={"class_labels": LABELS}
    )
    for some_plan, outcome in zip(plans, made.outcomes, strict=True):
        assert torch.equal(outcome.x, sampled(model(), options=some_plan.options))
    assert len(calls) < 2 * (len(GRID) - 1) + 1  # the equal plans share all their answers


# --- what has none ---


@pytest.mark.parametrize("learned", [False, None])
def test_a_network_without_it(learned):
    def plain(*arguments):
        return network(*arguments)[:, :3]

    for some_model in (model(plain, learned_variance=learned), MODEL):
        with pytest.raises(ValueError, match="has no learned variance: choose another variance"):
            sampled(some_model, None, shape=(3,))
    with pytest.raises(ValueError, match="has no learned variance"):
        sampled(kdiff.guide(model(plain, learned_variance=learned), "cfg"))


def test_nobody_else_can_answer_with_it():
    with pytest.raises(ValueError, match="ddim has no tableau with a learned variance"):
        trace(REGISTRY["ddim"], GRID, LEARNED)
    with pytest.raises(ValueError, match="what answers gives none: choose another variance"):
        sampled(model().replace(data_mean=0.0, data_std=0.5), first="analytic")
    with pytest.raises(ValueError, match="cond must not have 'learned_variance'"):
        sampled(model(), cond={"learned_variance": [1, 2, 3]})
    assert Ask(0.0, 1.0).variance is None
