"""Every kind of sampler that can be registered, and edits, in a loop like a pipeline's with
KDiffScheduler, against kdiff.sample in float64."""

import copy
import math
from itertools import pairwise
from typing import Annotated

import diffusers
import pytest
import torch

import adaptive_samplers
import kdiff
from adaptive_samplers import euler
from kdiff.compat.diffusers import KDiffScheduler
from kdiff.driver import TooManyEvaluations
from kdiff.editing import EDITS, edit
from kdiff.modifications import Modification
from kdiff.samplers import REGISTRY, Ask, Option, sampler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()

SEEDS = [3, 4]
SHAPE = (3, 4, 4)
STEPS = 5
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CONFIGS = {
    "eps": diffusers.DDIMScheduler(**BETAS, clip_sample=False).config,
    "flow": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config,
}
KEEP = (torch.arange(4) < 2).double()


def three_stages(x, sigmas):
    for s, t in pairwise(sigmas):
        d = yield x, s
        if t:
            middle = math.sqrt(s * t)
            d = yield euler(x, d, s, middle), middle
            d = yield euler(x, d, s, (middle + t) / 2), (middle + t) / 2
        x = euler(x, d, s, t)
    return x


def restarting(x, sigmas, *, noise):
    """Twice back from the third level to the second, with noise of its own each time."""
    for i, (s, t) in enumerate(pairwise(sigmas)):
        x = euler(x, (yield x, s), s, t)
        for draw in (1, 2) if i == 1 else ():
            x = x + math.sqrt(s**2 - t**2) * noise(s, t, draw=draw)
            x = euler(x, (yield x, s), s, t)
    return x


def corrected_at_the_end(x, sigmas):
    for s, t in pairwise(sigmas):
        last, d = x, (yield x, s)
        x = euler(x, d, s, t)
    if t:
        x = (x + euler(last, (yield x, t), s, t)) / 2
    return x


def ending_early(x, sigmas):
    for s, t in pairwise(sigmas[:4]):
        d = yield x, s
        x = euler(x, d, s, t)
    return d


def asking_lists(x, sigmas):
    for s, t in pairwise(sigmas):
        near = (2 * s + t) / 3
        d, other = yield [(x, s), Ask(0.99 * x, near)]
        x = euler(x, (3 * d + other) / 4, s, t)
    return x


def drawing_streams(x, sigmas, *, noise):
    for s, t in pairwise(sigmas):
        x = euler(x, (yield x, s), s, t)
        more = noise(s, t) + noise(s, t, draw=3) + noise(s, t, stream="side")
        x = x + t / 10 * more
    return x


def asking_for_gradients(x, sigmas):
    d = yield Ask(x, sigmas[0], graph=True)
    return d


def not_as_declared(x, sigmas):
    s = sigmas[0]
    while True:
        s = s * (0.5 if (yield x, s).abs().max() > 0 else 0.25)
        if s < 0.1:
            return x


def stopping(x, sigmas):
    for s in sigmas[:-1]:
        if (yield x, s).abs().max() > 0:
            break
    return x


def starting_elsewhere(x, sigmas):
    for s in sigmas[:-1]:
        x = yield 0.5 * x, s
    return x


def thirds(steps, final, options):
    return 3 * steps - 2 * (final == "zero")


KINDS = [
    (three_stages, {"order": 1, "nfe": thirds}),
    (restarting, {"order": 1, "nfe": lambda n, f, o: n + 2, "noise": "white", "ode": None}),
    (corrected_at_the_end, {"order": 1, "nfe": lambda n, f, o: n + (f != "zero")}),
    (ending_early, {"order": 1, "nfe": lambda n, f, o: min(n, 3)}),
    (asking_lists, {"order": 1, "nfe": lambda n, f, o: 2 * n}),
    (drawing_streams, {"order": 1, "noise": "brownian", "ode": None}),
]
NAMES = [*(f"kind_{function.__name__}" for function, _ in KINDS), "adaptive", "adaptive_by_sample"]
REFUSED = [
    (asking_for_gradients, {"order": 1, "nfe": lambda n, f, o: 1}),
    (not_as_declared, {"order": 1, "linear": False}),
    (stopping, {"order": 1, "linear": False}),
    (starting_elsewhere, {"order": 1}),
]


def clamped(start, x, sigmas, *, noise, most: Annotated[float, Option("bound", 0)] = 1.0):
    walk = start(x, sigmas)
    while walk.asks:
        answers = yield list(walk.asks)
        walk.answer(*(d.clamp(-most, most) for d in answers))
    return walk.result


def painted(start, x, sigmas, *, noise):
    """Half of each answer is put in place of the model's, with noise of the edit's own."""
    walk = start(x, sigmas)
    while walk.ask:
        s = walk.ask.sigma
        d = yield walk.ask
        n = noise(s, 0.0)
        n = n if walk.ask.rows is None else n[list(walk.ask.rows)]
        walk.answer((1 - KEEP) * d + KEEP * (0.5 + 0.1 * n))
    return walk.result


def asked_twice(start, x, sigmas, *, noise):
    walk = start(x, sigmas)
    while walk.ask:
        first = yield walk.ask
        again = yield walk.ask.x + 0.1 * noise(walk.ask.sigma, 1.0), walk.ask.sigma
        walk.answer((first + again) / 2)
    return walk.result


def changing_the_start(start, x, sigmas, *, noise):
    return clamped(start, 0.9 * x, sigmas, noise=noise)


def doubled(levels, sigmas, options):
    return [level for level in levels(sigmas) for _ in range(2)]


@pytest.fixture(autouse=True)
def registered():
    samplers = {f"kind_{function.__name__}": (function, d) for function, d in KINDS + REFUSED}
    edits = [(clamped, {}), (painted, {}), (asked_twice, {"levels": doubled})]
    edits = {function.__name__: (function, d) for function, d in [*edits, (changing_the_start, {})]}
    for name, (function, declared) in samplers.items():
        sampler(name, paper="of this test", **declared)(function)
    for name, (function, declared) in edits.items():
        edit(name, paper="of this test", **declared)(function)
    with adaptive_samplers.registered():
        yield
    for name in samplers:
        del REGISTRY[name]
    for name in edits:
        del EDITS[name]


def network(z, t):
    t = t.reshape(-1, *[1] * (z.ndim - 1)).float().double() if t.ndim else t.float().double()
    return 0.6 * z + 0.3 * torch.sin(3 * z + t / 200)


def make(kind="eps", name="euler", **chosen):
    scheduler = KDiffScheduler.from_config(
        CONFIGS[kind], sampler=name, seeds=SEEDS, schedule="karras", sigma_max=30, **chosen
    )
    scheduler.set_timesteps(STEPS)
    return scheduler


def start(scheduler):
    sigma = scheduler.plan.sigmas[0]
    noise = kdiff.Noise(SEEDS, SHAPE, torch.float64).initial()
    return noise * scheduler.precond(sigma).c_in * sigma


def loop(scheduler, z, timesteps=None):
    """What a pipeline does, and how often it called the network."""
    calls = 0
    for t in scheduler.timesteps if timesteps is None else timesteps:
        calls += 1
        z = scheduler.step(network(z, t), t, z, return_dict=False)[0]
    return z, calls


def expected(scheduler, name, **planned):
    """The result of kdiff.sample, and the number of its evaluations."""
    states = []
    model = kdiff.Denoiser(network, scheduler.precond, shape=SHAPE)
    grid = {"sigmas": scheduler.plan.sigmas}
    wide = {"seeds": SEEDS, "dtype": torch.float64, "callback": states.append}
    result = kdiff.sample(model, name, **grid, **wide, **planned)
    return result, len(states) - 1


def close(ours, other):
    assert ours.dtype == other.dtype == torch.float64
    assert (ours - other).abs().max() < 1e-9 * other.abs().max()


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_sampler(name, final, kind):
    scheduler = make(kind, name, final=final)
    z, calls = loop(scheduler, start(scheduler))
    theirs, evaluations = expected(scheduler, name)
    close(z, theirs)
    assert calls == evaluations
    if scheduler.plan.nfe is not None:
        assert len(scheduler.timesteps) == scheduler.plan.nfe == calls
    again, _ = loop(make(kind, name, final=final), start(scheduler))
    assert torch.equal(z, again)


EDITED = [
    (["clamped"], STEPS),
    (["clamped:most=0.3"], STEPS),
    (["painted"], STEPS),
    (["asked_twice"], 2 * STEPS),
    (["painted", "asked_twice", "clamped:most=2"], 2 * STEPS),
]


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize(("edits", "nfe"), EDITED, ids=str)
def test_edits(name, edits, nfe):
    scheduler = make("eps", name, edits=edits)
    assert len(scheduler.timesteps) == len(scheduler.sigmas) - 1 == nfe
    z, _ = loop(scheduler, start(scheduler))
    close(z, expected(scheduler, name, edits=edits)[0])
    assert not torch.allclose(z, expected(scheduler, name)[0], rtol=1e-3)


def test_an_edited_adaptive_sampler():
    scheduler = make("eps", "adaptive_by_sample", edits="painted")
    z, calls = loop(scheduler, start(scheduler))
    theirs, evaluations = expected(scheduler, "adaptive_by_sample", edits=["painted"])
    close(z, theirs)
    assert calls == evaluations


def test_edits_are_part_of_the_configuration(tmp_path):
    scheduler = make("eps", edits=Modification("clamped", {"most": 0.5}))
    scheduler.save_pretrained(tmp_path)
    other = KDiffScheduler.from_pretrained(tmp_path)
    other.set_timesteps(STEPS)
    assert other.plan == scheduler.plan
    assert other.plan.edits[0].options == {"most": 0.5}
    with pytest.raises(ValueError, match="unknown edit 'clampde'; did you mean clamped"):
        make("eps", edits=["clampde"])
    with pytest.raises(ValueError, match="most must be a number, at least 0, not '-1'"):
        make("eps", edits=["clamped:most=-1"])


# --- beginning within ----------------------------------------------------------------------------


BEGUN = [
    ("kind_three_stages", [], 3),
    ("kind_asking_lists", [], 2),
    ("adaptive", [], 1),
    ("adaptive_by_sample", [], 1),
    ("dpmpp_2m", ["clamped", "asked_twice"], 2),
]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("name", "edits", "order"), BEGUN)
def test_image_to_image(name, edits, order, told):
    """From the third step's level on, as pipelines find it: `order` evaluations a step."""
    scheduler = make("eps", name, edits=edits)
    assert scheduler.order == order
    sigmas, first = scheduler.plan.sigmas[2:], 2 * order
    if told:
        scheduler.set_begin_index(first)
    noise = kdiff.Noise(SEEDS, SHAPE, torch.float64).initial()
    timesteps = scheduler.timesteps[first:]
    z = scheduler.add_noise(torch.ones(2, *SHAPE).double(), noise, timesteps[:1])
    z, _ = loop(scheduler, z, timesteps)
    model = kdiff.Denoiser(network, scheduler.precond, shape=SHAPE)
    plan = kdiff.plan(model, name, sigmas=sigmas, edits=edits)
    source = kdiff.Noise(SEEDS, SHAPE, torch.float64)
    *_, last = kdiff.drive(model, plan, 1 + sigmas[0] * noise, source)
    close(z, last.x)


def test_a_restart_belongs_to_its_grid():
    """Begun later, it would go back elsewhere: that is another course."""
    scheduler = make("eps", "kind_restarting")
    scheduler.set_begin_index(1)
    with pytest.raises(ValueError, match="kind_restarting cannot begin at evaluation 1"):
        loop(scheduler, start(scheduler), scheduler.timesteps[1:])


# --- adaptive samplers ---------------------------------------------------------------------------


def test_timesteps_of_an_adaptive_sampler():
    """As many as its limit; the loop ends with the sampler, and says at which levels it was."""
    scheduler = make("eps", "adaptive_by_sample", options={"limit": 80})
    assert len(scheduler.timesteps) == 80
    assert scheduler.plan.nfe is None
    z, calls = loop(scheduler, start(scheduler))
    assert STEPS < calls == scheduler.step_index < 80
    levels = scheduler.sigmas[:calls]
    assert (levels[1:] > levels[:-1]).any()  # the second sample's begin again at the start
    clock = [scheduler.precond(s).c_noise for s in levels.double().tolist()]
    assert scheduler.timesteps[:calls].tolist() == pytest.approx(clock, rel=1e-4, abs=1e-3)
    assert (scheduler.sigmas[calls:] == scheduler.plan.sigmas[-1]).all()
    assert torch.equal(scheduler.step(z, scheduler.timesteps[calls], z).prev_sample, z)


def test_a_loop_over_indices_bears_the_early_end():
    scheduler, other = make("eps", "adaptive"), make("eps", "adaptive")
    z = start(scheduler)
    for i in range(len(scheduler.timesteps)):
        t = scheduler.timesteps[i]
        z = scheduler.step(network(z, t), t, z).prev_sample
    theirs, calls = loop(other, start(other))
    assert torch.equal(z, theirs)
    assert scheduler.step_index == other.step_index == calls < 60
    assert torch.equal(loop(other, start(other))[0], z)  # and again, on the same timesteps


def test_what_an_adaptive_sampler_cannot_bear():
    scheduler = make("eps", "adaptive")
    with pytest.raises(ValueError, match="written as the sampler goes: do not copy them"):
        loop(scheduler, start(scheduler), scheduler.timesteps.clone())
    scheduler = make("eps", "adaptive_by_sample", options={"limit": 8})
    with pytest.raises(TooManyEvaluations, match="has not ended after 8 evaluations of the batch"):
        loop(scheduler, start(scheduler))


def test_inpainting_with_an_adaptive_sampler():
    """The known half is at the noise level of the next evaluation, and clean at the end."""
    scheduler = make("eps", "adaptive")
    known, noise = torch.full((2, *SHAPE), 0.3).double(), start(scheduler)
    z, timesteps = noise, scheduler.timesteps
    for i, t in enumerate(timesteps):
        z = scheduler.step(network(z, t), t, z).prev_sample
        level = scheduler.add_noise(known, noise, timesteps[i + 1 : i + 2])
        z = (1 - KEEP) * z + KEEP * level
    assert torch.equal(z[..., :2], known[..., :2])
    assert z.isfinite().all()


def test_ddpm_pipeline_calls_the_network_only_until_the_end():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(8,),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
        ).eval()
    calls = []
    unet.register_forward_pre_hook(lambda module, given: calls.append(float(given[1])))
    pipe = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**BETAS))
    pipe.set_progress_bar_config(disable=True)
    config = pipe.scheduler.config
    pipe.scheduler = KDiffScheduler.from_config(config, sampler="adaptive", seeds=SEEDS)
    generator = torch.Generator().manual_seed(1)
    images = pipe(2, generator, num_inference_steps=STEPS, output_type="np").images
    assert images.shape == (2, 8, 8, 3)
    assert len(calls) == pipe.scheduler.step_index < 60
    assert calls == pipe.scheduler.timesteps[: len(calls)].tolist()


def test_copies_of_an_adaptive_scheduler():
    ours = make("eps", "adaptive")
    other = copy.deepcopy(ours)
    z, _ = loop(ours, start(ours))
    assert other.step_index is None
    assert len(list(other.timesteps)) == 60
    assert torch.equal(loop(other, start(other))[0], z)


# --- what is refused -----------------------------------------------------------------------------


def test_changes_that_a_pipeline_cannot_follow():
    for chosen in ({"name": "kind_starting_elsewhere"}, {"edits": ["changing_the_start"]}):
        scheduler = make("eps", **chosen)
        with pytest.raises(ValueError, match="changes the start before its first evaluation"):
            loop(scheduler, start(scheduler))
    scheduler = make("eps", "kind_asking_for_gradients")
    with pytest.raises(ValueError, match="kind_asking_for_gradients needs gradients"):
        loop(scheduler, start(scheduler))


def test_a_sampler_that_asks_what_it_does_not_declare():
    scheduler = make("eps", "kind_stopping")
    with pytest.raises(RuntimeError, match="kind_stopping ends after 1 evaluations, which is not"):
        loop(scheduler, start(scheduler))
    scheduler = make("eps", "kind_not_as_declared")
    with pytest.raises(RuntimeError, match=r"kind_not_as_declared asks at sigma = 15, which"):
        loop(scheduler, start(scheduler))
