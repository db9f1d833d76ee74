"""`kdiff.compat.k_diffusion` against k-diffusion 0.1.1.post1 itself, through what
tools/make_k_diffusion_compat_golden.py stored, and with programs written for it."""

import inspect
import json
import math
from itertools import pairwise

import pytest
import torch

import places
from kdiff.compat import k_diffusion as K

GOLDEN = json.loads((places.GOLDEN / "k_diffusion_compat.json").read_text())
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
ENDS = {"sigma_min": 0.03, "sigma_max": 14.6}


def label(case):
    options = ",".join(f"{k}={v}" for k, v in case.get("options", case.get("settings")).items())
    return f"{case['name']}({options})-{case['dtype']}"


def model(x, sigma, shift=0.0):
    return (x / (1 + sigma[:, None] ** 2)).tanh() + shift


def noise_sampler(x):
    index = torch.arange(1, x.numel() + 1, dtype=x.dtype).view_as(x)
    return lambda s, t: torch.sin(index + s.log() - t.log() / 2)


def start(dtype=torch.float64):
    return 14.6 * torch.arange(16, dtype=torch.float64).sin().reshape(2, 8).to(dtype)


def close(result, expected, tolerance):
    """Relative to the largest component."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    result = torch.as_tensor(result, dtype=torch.float64)
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture
def default_dtype():
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("case", GOLDEN["samples"], ids=label)
def test_sampler(case, default_dtype):
    dtype, tolerance = DTYPES[case["dtype"]], TOLERANCE[case["dtype"]]
    default_dtype(dtype)
    sigmas = K.sampling.get_sigmas_karras(6, **ENDS)
    torch.manual_seed(0)
    x, seen, calls = start(dtype), [], []

    def watched(x, sigma, **extra):
        calls.append(sigma.tolist())
        return model(x, sigma, **extra)

    def callback(info):
        numbers = [info[key].sum().item() for key in ("x", "denoised")]
        seen.append([info["i"], info["sigma"].item(), info["sigma_hat"].item(), *numbers])

    options = dict(case["options"])
    if case["name"].endswith("sde"):
        options["noise_sampler"] = noise_sampler(x)
    run = getattr(K.sampling, case["name"])
    result = run(watched, x, sigmas, {"shift": 0.1}, callback, True, **options)
    assert result.dtype == dtype
    close(result, case["result"], tolerance)
    for ours, theirs in ((seen, case["seen"]), (calls, case["calls"])):
        close(ours, theirs, 10 * tolerance)  # sums; sigmas that float32 has rounded
    default_dtype(torch.float32)
    assert torch.randn(1).item() == case["next_draw"]  # the global generator is where it was


@pytest.mark.parametrize("case", GOLDEN["schedules"], ids=label)
def test_schedule(case, default_dtype):
    default_dtype(DTYPES[case["dtype"]])
    sigmas = getattr(K.sampling, case["name"])(8, **case["settings"])
    assert sigmas.dtype == DTYPES[case["dtype"]]
    close(sigmas, case["sigmas"], TOLERANCE[case["dtype"]])


@pytest.mark.parametrize("case", GOLDEN["ancestral_steps"], ids=str)
def test_ancestral_step(case):
    s, t, eta, down, up = case
    for kind in (float, torch.tensor):
        ours = K.sampling.get_ancestral_step(kind(s), kind(t), eta=eta)
        assert [float(value) for value in ours] == pytest.approx([down, up], rel=1e-6, abs=1e-7)
    assert isinstance(ours[0], torch.Tensor)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        betas = torch.linspace(1e-4, 0.02, 50, dtype=torch.float64)
        self.alphas_cumprod = (1 - betas).cumprod(0)

    def forward(self, x, t, shift=0.0):
        return torch.cat([(x + t[:, None] / 100).sin() + shift, x], 1)

    def apply_model(self, x, t, cond):
        return self(x, t, cond)[:, :8]


def half(x, t, **extra):
    return Network()(x, t, **extra)[:, :8]


class OfNumpy:
    """guided-diffusion's `diffusion` has arrays."""

    alphas_cumprod = Network().alphas_cumprod.numpy()


ALPHAS = Network().alphas_cumprod
WRAPPERS = {
    "VDenoiser": K.external.VDenoiser(half),
    "Denoiser": K.Denoiser(half, sigma_data=0.5),
    "DiscreteEpsDDPMDenoiser": K.external.DiscreteEpsDDPMDenoiser(half, ALPHAS, False),
    "DiscreteEpsDDPMDenoiser, quantized": K.external.DiscreteEpsDDPMDenoiser(half, ALPHAS, True),
    "OpenAIDenoiser": K.external.OpenAIDenoiser(Network(), OfNumpy),
    "DiscreteVDDPMDenoiser": K.external.DiscreteVDDPMDenoiser(half, ALPHAS, False),
    "CompVisDenoiser": K.external.CompVisDenoiser(Network()),
    "CompVisVDenoiser": K.external.CompVisVDenoiser(Network(), quantize=True),
}


@pytest.mark.parametrize("name", GOLDEN["wrappers"])
def test_wrapper(name):
    golden, wrapper = GOLDEN["wrappers"][name], WRAPPERS[name]
    x, sigma = start(), torch.tensor([0.7, 0.033], dtype=torch.float64)
    extra = {"cond": 0.1} if name.startswith("CompVis") else {"shift": 0.1}
    # 2e-7: t, through which the discrete ones agree, is made in float32 from float32 tables.
    tolerance = 1e-6 if name == "OpenAIDenoiser" else 1e-12
    close(wrapper(x, sigma, **extra), golden["denoised"], tolerance)
    close(wrapper.loss(x, x.cos(), sigma, **extra), golden["loss"], tolerance)
    for ours, theirs in zip(wrapper.get_scalings(sigma), golden["scalings"], strict=True):
        close(ours, theirs, 1e-12)
    if "t" in golden:
        many = torch.tensor([1e-4, 0.01, 0.1, 0.5, 0.8, 3.0], dtype=torch.float64)
        close(wrapper.sigma_to_t(many), golden["t"], tolerance)
    if "sigma" in golden:
        times = torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64)
        times *= 40 if "sigmas" in golden else 1
        close(wrapper.t_to_sigma(times), golden["sigma"], tolerance)
    if "sigmas" in golden:
        close(wrapper.get_sigmas(5), golden["sigmas"], tolerance)
        close(wrapper.get_sigmas(), golden["all_sigmas"], tolerance)
        assert sorted(wrapper.state_dict()) == golden["state"]
        close([wrapper.sigma_min.item(), wrapper.sigma_max.item()], golden["ends"], tolerance)


def signature(thing):
    return [
        [p.name, "..." if inspect.isfunction(p.default) else repr(p.default)]
        for p in inspect.signature(thing).parameters.values()
    ]


@pytest.mark.parametrize(
    ("module", "name"), [(m, name) for m, names in GOLDEN["signatures"].items() for name in names]
)
def test_signature(module, name):
    ours, theirs = signature(getattr(getattr(K, module), name)), GOLDEN["signatures"][module][name]
    assert ours[: len(theirs)] == theirs
    assert all(default != repr(inspect.Parameter.empty) for _, default in ours[len(theirs) :])


@pytest.mark.parametrize(
    "sigmas", [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, math.nan, 0.0], [0.0, 1.0], [1.0, -1.0]]
)
def test_bad_sigmas(sigmas):
    with pytest.raises(ValueError, match="sigmas must be"):
        K.sampling.sample_euler(model, start(), torch.tensor(sigmas), disable=True)


def test_bad_options():
    with pytest.raises(ValueError, match="eta must be"):
        K.sampling.sample_euler_ancestral(model, start(), torch.tensor([1.0, 0.0]), eta=2.0)
    with pytest.raises(ValueError, match="of 2 dims cannot"):
        K.utils.append_dims(torch.ones(2, 2), 1)


def test_no_steps_give_the_start_and_no_step_has_gradients():
    x = start().requires_grad_()
    assert K.sampling.sample_heun(model, x, torch.tensor([1.0]), disable=True) is x
    sigmas = torch.tensor([1.0, 0.5, 0.0])
    assert not K.sampling.sample_heun(model, x, sigmas, disable=True).requires_grad


def test_there_and_back():
    """Programs that encode a picture run the ODE with rising sigmas."""
    sigmas = K.sampling.get_sigmas_karras(200, 0.05, 10.0).double()[:-1]
    x = start() / 14.6
    up = K.sampling.sample_dpmpp_2m(model, x, sigmas.flip(0), disable=True)
    back = K.sampling.sample_dpmpp_2m(model, up, sigmas, disable=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-2)


def test_brownian_path_adds_up_and_depends_on_the_seed_only():
    x = torch.zeros(2, 3)
    tree = K.sampling.BatchedBrownianTree(x, torch.tensor(14.6), torch.tensor(0.03), seed=[5, 6])
    a, b, c = torch.tensor(0.03), torch.tensor(2.5), torch.tensor(14.6)
    torch.testing.assert_close(tree(a, b) + tree(b, c), tree(a, c), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tree(c, a), -tree(a, c))
    assert not tree(b, b).any()
    single = K.sampling.BatchedBrownianTree(x[0], c, a, seed=6)
    assert torch.equal(single(a, b), tree(a, b)[1])
    torch.manual_seed(3)
    first = K.sampling.BrownianTreeNoiseSampler(x, 0.03, 14.6)(c, b)
    torch.manual_seed(3)
    assert torch.equal(K.sampling.BrownianTreeNoiseSampler(x, 0.03, 14.6)(c, b), first)
    with pytest.raises(ValueError, match="3 seeds for a batch of 2"):
        K.sampling.BatchedBrownianTree(x, 0.0, 1.0, seed=[1, 2, 3])


def test_brownian_path_has_the_law_of_torchsdes():
    """Increments over sigma are normal with variance |sigma - sigma_next|, so what a sampler draws
    is standard normal, independent over disjoint steps, and over (s, m) and (s, t) correlated by
    sqrt((s - m) / (s - t))."""
    noise = K.sampling.BrownianTreeNoiseSampler(torch.zeros(100_000), 0.03, 14.6, seed=1)
    sigmas = K.sampling.get_sigmas_karras(12, 0.03, 14.6)[:-1]
    steps = torch.stack([noise(s, t) for s, t in pairwise(sigmas)])
    correlation = steps @ steps.T / steps.shape[1]
    torch.testing.assert_close(correlation, torch.eye(11), rtol=0, atol=0.015)
    s, m, t = sigmas[2], (sigmas[2] * sigmas[3]).sqrt(), sigmas[3]
    shared = float((noise(s, m) * noise(s, t)).mean())
    assert shared == pytest.approx(float(((s - m) / (s - t)).sqrt()), abs=0.015)
    logs = K.sampling.BrownianTreeNoiseSampler(
        torch.zeros(100_000), 0.03, 14.6, seed=1, transform=lambda sigma: -sigma.log()
    )
    shared = float((logs(s, m) * logs(s, t)).mean())
    assert shared == pytest.approx(0.5**0.5, abs=0.015)


def test_stochastic_samplers_draw_their_own_brownian_path():
    sigmas = K.sampling.get_sigmas_karras(6, **ENDS)
    for name in ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"):
        results = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            run = getattr(K.sampling, f"sample_{name}")
            results.append(run(model, start(torch.float32), sigmas, disable=True))
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])
