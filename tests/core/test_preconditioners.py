"""Preconditioners: the published coefficients, and one D behind every kind of network."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import kdiff
from kdiff.betas import sigmas_of
from kdiff.preconditioners import PRECONDS
from kdiff.samplers import REGISTRY
from kdiff.samplers.vp import vp_sigma, vp_time

SIGMAS = [0.0021, 0.02, 0.3, 1.0, 7.5, 79.0]
PARAMETERISATIONS = ("edm", "vp", "sub_vp", "ve", "iddpm", "eps", "v", "x0", "flow", "denoised")


def alpha_bar(sigma: float) -> float:
    return 1 / (1 + sigma**2)


def sub_vp_alpha(sigma: float) -> float:
    """Song et al. 2021: x_t = alpha x0 + (1 - alpha^2) n, so that sigma = 1 / alpha - alpha."""
    return 2 / (sigma + math.sqrt(sigma**2 + 4))


def vp_t(sigma: float) -> float:
    """Karras et al. 2022, table 1: sigma^-1, with beta_d = 19.9 and beta_min = 0.1."""
    return (math.sqrt(0.1**2 + 2 * 19.9 * math.log(1 + sigma**2)) - 0.1) / 19.9


# Karras et al. 2022, table 1, as printed; then what defines the other networks.
PUBLISHED = {
    "vp": lambda s: (1, -s, 1 / math.sqrt(s**2 + 1), 999 * vp_t(s)),
    "sub_vp": lambda s: (1, -s, sub_vp_alpha(s), 999 * vp_t(math.sqrt(s / sub_vp_alpha(s)))),
    "ve": lambda s: (1, s, 1, math.log(s / 2)),
    "edm": lambda s: (
        0.5**2 / (s**2 + 0.5**2),
        s * 0.5 / math.sqrt(0.5**2 + s**2),
        1 / math.sqrt(s**2 + 0.5**2),
        math.log(s) / 4,
    ),
    "iddpm": lambda s: (1, -s, 1 / math.sqrt(s**2 + 1)),
    "eps": lambda s: (1, -s, math.sqrt(alpha_bar(s))),
    # Salimans & Ho 2022: x0 = alpha z - sigma v, of z = x / sqrt(1 + s^2)
    "v": lambda s: (alpha_bar(s), -math.sqrt(1 - alpha_bar(s)), math.sqrt(alpha_bar(s))),
    "x0": lambda s: (0, 1, math.sqrt(alpha_bar(s))),
    "flow": lambda s: (1 / (1 + s), -s / (1 + s), 1 / (1 + s), s / (1 + s)),
    "denoised": lambda s: (0, 1, 1, s),
}


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_the_coefficients_are_the_published_ones(name, sigma):
    found, published = kdiff.precond(name)(sigma), PUBLISHED[name](sigma)
    # c_noise of vp as printed cancels at small t; elsewhere only rounding differs
    assert found[:3] == pytest.approx(published[:3], rel=1e-13)
    if len(published) == 4:
        assert found.c_noise == pytest.approx(published[3], rel=1e-9)
    assert all(type(c) is float for c in found)


def test_settings_reach_the_coefficients():
    assert kdiff.precond("edm", sigma_data=1.0)(1.0)[:3] == pytest.approx(
        (0.5, math.sqrt(0.5), math.sqrt(0.5))
    )
    assert kdiff.precond("flow", time_scale=1000)(1.0).c_noise == 500
    assert kdiff.precond("vp", steps=101)(vp_sigma(0.5)).c_noise == pytest.approx(50)
    assert kdiff.precond("edm", sigma_max=50).sigma_max == 50


@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_a_preconditioner_is_made_again_from_its_config(name):
    made = PRECONDS[name](sigma_max=300.0) if name in ("edm", "ve", "flow") else PRECONDS[name]()
    again = kdiff.precond(**json.loads(json.dumps(made.config)))
    assert again.config == made.config and again.sigma_max == made.sigma_max
    assert [again(s) for s in SIGMAS] == [made(s) for s in SIGMAS]


def test_the_config_of_a_discrete_model_is_plain():
    table = torch.linspace(0.99, 0.01, 10, dtype=torch.float64)
    made = kdiff.precond("v", alphas_cumprod=table, round=True)
    assert kdiff.precond(**json.loads(json.dumps(made.config)))(0.7) == made(0.7)
    assert kdiff.precond("eps", end=0.03).config == {"name": "eps", "end": 0.03}


def test_vp_time_is_the_inverse_of_vp_sigma():
    for t in (1e-5, 1e-3, 0.3, 1.0):
        assert vp_time(vp_sigma(t)) == pytest.approx(t, rel=1e-12)


# --- one D, as what each kind of network predicts ---

MIXTURE = kdiff.analytic.GaussianMixture(
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)


def from_table(sigmas):
    """sigma of a (fractional) timestep: linear in log sigma between the table's."""
    return lambda t: math.exp(np.interp(t, range(len(sigmas)), np.log(sigmas)))


def predicts_eps(x_in: torch.Tensor, s: float) -> torch.Tensor:
    x = x_in * math.sqrt(1 + s**2)
    return (x - MIXTURE(x, s)) / s


def predicts_v(x_in: torch.Tensor, s: float) -> torch.Tensor:
    x0 = MIXTURE(x_in * math.sqrt(1 + s**2), s)
    return math.sqrt(alpha_bar(s)) * predicts_eps(x_in, s) - math.sqrt(1 - alpha_bar(s)) * x0


def predicts_velocity(x_in: torch.Tensor, s: float) -> torch.Tensor:
    """n - x0 of x_t = (1 - t) x0 + t n."""
    t = s / (1 + s)
    x0 = MIXTURE(x_in / (1 - t), s)
    return (x_in - (1 - t) * x0) / t - x0


def predicts_edm_target(x_in: torch.Tensor, s: float) -> torch.Tensor:
    """EDM, eq. 8: (x0 - c_skip x) / c_out."""
    c_skip, c_out, c_in, _ = PUBLISHED["edm"](s)
    x = x_in / c_in
    return (MIXTURE(x, s) - c_skip * x) / c_out


DISCRETE_SIGMAS = sigmas_of(kdiff.alphas_cumprod("linear"))
# what the network predicts, and the sigma that it reads from c_noise
NETWORKS = {
    "edm": (predicts_edm_target, lambda c: math.exp(4 * c)),
    "vp": (predicts_eps, lambda c: vp_sigma(c / 999)),
    "sub_vp": (
        lambda x, s: (x / sub_vp_alpha(s) - MIXTURE(x / sub_vp_alpha(s), s)) / s,
        lambda c: vp_sigma(c / 999) ** 2 / math.hypot(1, vp_sigma(c / 999)),
    ),
    "ve": (lambda x, s: (MIXTURE(x, s) - x) / s, lambda c: 2 * math.exp(c)),
    "iddpm": (predicts_eps, from_table(kdiff.precond("iddpm").sigmas)),
    "eps": (predicts_eps, from_table(DISCRETE_SIGMAS)),
    "v": (predicts_v, from_table(DISCRETE_SIGMAS)),
    "x0": (lambda x, s: MIXTURE(x * math.sqrt(1 + s**2), s), from_table(DISCRETE_SIGMAS)),
    "flow": (predicts_velocity, lambda c: c / (1 - c)),
    "denoised": (MIXTURE, lambda c: c),
}


def denoiser(name: str) -> kdiff.Denoiser:
    target, sigma_of = NETWORKS[name]
    return kdiff.Denoiser(lambda x, c: target(x, sigma_of(c[0].item())), name, shape=(2,))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_no_parameterisation_is_left_out():
    assert set(NETWORKS) == set(PUBLISHED) == set(PARAMETERISATIONS) == set(PRECONDS)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_the_same_denoised(name):
    model = denoiser(name)
    unit = kdiff.Noise(range(8), (2,), torch.float64).initial()
    for sigma in np.geomspace(model.sigma_min, model.sigma_max, 50):
        x = float(sigma) * unit
        assert relative(model(x, float(sigma)), MIXTURE(x, float(sigma))) < 1e-6, sigma


@pytest.mark.parametrize("sampler", REGISTRY)
def test_every_network_gives_the_same_samples(run, sampler):
    start = 70 * kdiff.Noise(range(4), (2,), torch.float64).initial()
    sigmas = kdiff.schedule("karras", 10, sigma_min=0.03, sigma_max=70)
    options = REGISTRY[sampler].ode
    expected = run(MIXTURE, sampler, sigmas, start, **options)
    for name in NETWORKS:
        found = run(denoiser(name), sampler, sigmas, start, **options)
        assert relative(found, expected) < 1e-6, name


# --- the clock of discrete models ---


def test_a_timestep_has_its_table_s_sigma():
    precond = kdiff.precond("eps")
    table = np.array(precond.sigmas)
    assert len(table) == 1000
    a = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(table, np.sqrt((1 - a) / a), rtol=1e-12)
    for t in (0, 1, 499, 998, 999):
        assert precond(table[t]).c_noise == t
    assert (precond.sigma_min, precond.sigma_max) == (table[0], table[-1])


def test_between_timesteps_log_sigma_is_linear():
    precond = kdiff.precond("v", alphas_cumprod="scaled_linear")
    table = precond.sigmas
    for t, part in ((0, 0.25), (500, 0.5), (998, 0.9)):
        sigma = table[t] ** (1 - part) * table[t + 1] ** part
        assert precond(sigma).c_noise == pytest.approx(t + part, abs=1e-9)


@pytest.mark.parametrize("round", [False, True])
def test_the_clock_stops_at_both_ends(round):
    precond = kdiff.precond("eps", round=round)
    assert [precond(s).c_noise for s in (1e-30, 1e-9, 1e4)] == [0, 0, 999]


def test_round_takes_the_nearest_sigma():
    precond = kdiff.precond("eps", alphas_cumprod=[0.9, 0.5, 0.1], round=True)  # sigmas 1/3, 1, 3
    cases = {0.1: 0, 0.66: 0, 0.67: 1, 1.0: 1, 1.99: 1, 2.01: 2, 9: 2}
    assert {s: precond(s).c_noise for s in cases} == cases


def test_iddpm_against_the_released_code_of_karras():
    """EDM's iDDPMPrecond: c_noise = M - 1 - argmin |u_j - sigma|, u_0 the largest."""
    M, C1, C2 = 1000, 0.001, 0.008
    u = torch.zeros(M + 1, dtype=torch.float64)
    for j in range(M, 0, -1):
        a, a_next = (math.sin(0.5 * np.pi * k / M / (C2 + 1)) ** 2 for k in (j, j - 1))
        u[j - 1] = ((u[j] ** 2 + 1) / max(a_next / a, C1) - 1).sqrt()
    precond = kdiff.precond("iddpm", round=True)
    torch.testing.assert_close(
        torch.tensor(precond.sigmas[::-1], dtype=torch.float64), u[:M], rtol=1e-12, atol=0
    )
    for sigma in SIGMAS[1:]:  # below u_999 / 2 theirs is -1, for u_1000 = 0; here it stays 0
        assert precond(sigma).c_noise == M - 1 - int((u - sigma).abs().argmin())
        assert abs(kdiff.precond("iddpm")(sigma).c_noise - precond(sigma).c_noise) < 0.51


def test_iddpm_is_the_cosine_schedule():
    """Also in its last step, whose alphas_cumprod is 2e-9 but not zero."""
    cosine = kdiff.precond("eps", alphas_cumprod="cosine").sigmas
    np.testing.assert_allclose(kdiff.precond("iddpm").sigmas, cosine, rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("linear", {"beta_schedule": "linear"}),
        ("scaled_linear", {"beta_schedule": "scaled_linear", "beta_start": 0.00085}),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_alphas_cumprod_against_diffusers(kind, theirs):
    """Theirs are products in float32; cos near pi / 2, and 1 - beta of 0.999, lose most there."""
    diffusers = pytest.importorskip("diffusers")
    if kind == "scaled_linear":
        theirs["beta_end"] = 0.012
    expected = diffusers.DDPMScheduler(**theirs).alphas_cumprod.double()
    tolerance = 1e-3 if kind == "cosine" else 1e-4
    np.testing.assert_allclose(kdiff.alphas_cumprod(kind), expected, rtol=tolerance)


def test_a_zero_terminal_snr_is_finite():
    scheduling_ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    a = (1 - scheduling_ddim.rescale_zero_terminal_snr(betas)).cumprod(0)
    assert a[-1] == 0
    precond = kdiff.precond("v", alphas_cumprod=a.tolist())
    assert np.isfinite(precond.sigmas).all()
    assert precond.sigmas[:-1] == pytest.approx(
        (((1 - a) / a) ** 0.5)[:-1].double().tolist(), rel=1e-3
    )
    assert precond.sigma_max == pytest.approx(4096, rel=1e-6)
    assert np.isfinite(precond(precond.sigma_max)).all()


def zero_at_the_end(name):
    linear = torch.linspace(0.005, 1.0, 20, dtype=torch.float64)
    return {
        "linear": lambda: (1 - linear).cumprod(0).tolist(),
        "float32": lambda: (1 - linear.float()).cumprod(0).tolist(),
        "rounded past 1": lambda: (1 - linear * (1 + 1e-9)).cumprod(0).tolist(),
        "cosine": lambda: kdiff.alphas_cumprod("cosine", 8000, max_beta=1.0),
        "denormal before": lambda: [0.9, 1e-299, 0.0],
        "early": lambda: [0.9, 0.0],
    }[name]()


@pytest.mark.parametrize(
    "name", ["linear", "float32", "rounded past 1", "cosine", "denormal before", "early"]
)
def test_a_zero_terminal_snr_after_any_alpha(name):
    alphas = zero_at_the_end(name)
    sigmas = sigmas_of(alphas)
    assert np.isfinite(sigmas).all() and (np.diff(sigmas) > 0).all()
    a = np.array(alphas[:-1])
    assert sigmas[:-1] == pytest.approx(np.sqrt((1 - a) / a).tolist(), rel=1e-12)
    assert sigmas[-1] == pytest.approx(4096 if sigmas[-2] < 4096 else 2 * sigmas[-2], rel=1e-6)


def test_betas_that_end_at_1():
    model = kdiff.wrap(lambda x, t: x, "v", shape=(2,), betas=torch.linspace(0.005, 1.0, 20))
    assert kdiff.schedule("trailing", 4, model)[0] == pytest.approx(model.sigmas[-1])


@pytest.mark.parametrize(
    ("alphas", "where"),
    [([0.9, 1e-310, 1e-320], "at timestep 1 of 3"), ([0.9, 0.0, 0.0], "at timestep 1 of 3")],
)
def test_alphas_cumprod_of_which_nothing_is_left(alphas, where):
    with pytest.raises(ValueError, match=f"must end where nothing is left of the data: {where}"):
        sigmas_of(alphas)


@pytest.mark.parametrize(
    "alphas",
    [
        [0.5, 0.9],
        [0.9, 0.9, 0.5],
        [1.0, 0.5],
        [0.9],
        [],
        [0.9, -0.1],
        [0.9, math.nan],
        [[0.9, 0.5]],
    ],
)
def test_wrong_alphas_cumprod(alphas):
    with pytest.raises(ValueError, match="alphas_cumprod must be a list that decreases strictly"):
        kdiff.precond("eps", alphas_cumprod=alphas)


def test_wrong_names_and_settings():
    with pytest.raises(ValueError, match="unknown preconditioner 'edn'; did you mean edm"):
        kdiff.precond("edn")
    with pytest.raises(ValueError, match="unknown beta schedule 'quadratic'; there is linear"):
        kdiff.precond("eps", alphas_cumprod="quadratic")
    with pytest.raises(TypeError, match="sigma_dta"):
        kdiff.precond("edm", sigma_dta=1)
    with pytest.raises(TypeError, match="beta_start"):
        kdiff.precond("eps", beta_start=1)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("edm", {"sigma_min": "x"}, "sigma_min must be a number, not 'x'"),
        ("edm", {"sigma_max": [1]}, "sigma_max must be a number"),
        ("edm", {"sigma_data": None}, "sigma_data must be a number"),
        ("flow", {"time_scale": "1000"}, "time_scale must be a number, not '1000'"),
        ("vp", {"steps": "x"}, "steps must be a whole number"),
        ("vp", {"beta_d": 1e300}, "there is no vp with"),
        ("iddpm", {"c1": 0, "c2": -1}, "there is no iddpm with"),
        ("v", {"round": "maybe"}, "round must be True or False, not 'maybe'"),
        ("eps", {"start": "x"}, "start must be a number, not 'x'"),
    ],
)
def test_settings_of_another_type(name, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        kdiff.precond(name, **settings)


# --- the network's call ---


class Recorder(nn.Module):
    """A 1x1 convolution that keeps what it was given."""

    def __init__(self, channels_out: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels_out, 1)

    def forward(self, x, c_noise, class_labels=None):
        self.given = x, c_noise, class_labels
        return self.conv(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_keeps_its_dtype_and_the_solver_its_own(dtype):
    full, network = Recorder(), Recorder()
    model = kdiff.Denoiser(network, "eps", shape=(3, 4, 4)).to(dtype=dtype)
    reference = kdiff.Denoiser(full, "eps", shape=(3, 4, 4))
    assert model.dtype is dtype
    x = kdiff.sample(model, "dpmpp_2m", steps=5, schedule="trailing", n=2)
    assert x.dtype is torch.float32
    assert network.given[0].dtype is dtype
    assert network.given[1].dtype is torch.promote_types(dtype, torch.float32)
    expected = kdiff.sample(reference, "dpmpp_2m", steps=5, schedule="trailing", n=2)
    assert relative(x, expected) < 64 * max(torch.finfo(dtype).eps, 1e-7)


def test_bfloat16_tells_all_timesteps_apart():
    network = Recorder()
    model = kdiff.Denoiser(network, "eps", shape=(3, 1, 1)).to(dtype=torch.bfloat16)
    seen = set()
    for sigma in model.sigmas:
        model(torch.zeros(1, 3, 1, 1), sigma)
        seen.add(network.given[1].item())
    assert len(seen) == 1000


def test_a_network_without_parameters_gets_the_dtype_of_x():
    for dtype in (torch.float16, torch.float64):
        given = []
        model = kdiff.Denoiser(lambda x, c, g=given: g.append(x.dtype) or x, "edm", shape=(1,))
        assert model(torch.ones(1, 1, dtype=dtype), 1.0).dtype is dtype
        assert given == [dtype]
        assert (model.dtype, model.device.type) == (None, "cpu")


def test_a_learned_variance_is_dropped():
    network, plain = Recorder(6), Recorder(3)
    plain.conv.weight.data, plain.conv.bias.data = (
        p.data[:3].clone() for p in network.parameters()
    )
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    both = [
        kdiff.Denoiser(n, "eps", shape=(3, 4, 4), learned_variance=learned)(x, 3.0)
        for n, learned in ((network, True), (plain, False))
    ]
    torch.testing.assert_close(*both)


def twice(channels=6):
    return lambda x, c: torch.cat([x, x + 1], dim=1)[:, :channels]


def test_a_learned_variance_is_never_guessed():
    """Only what was said, or what the first answer showed where nothing was."""
    x = torch.ones(2, 3, 2, 2)

    def model(answers, learned):
        return kdiff.Denoiser(answers, "edm", shape=(3, 2, 2), learned_variance=learned)

    for answers, learned, said in (
        (
            twice(),
            False,
            "not \\(2, 6, 2, 2\\); if half of that is a learned variance, say",
        ),
        (twice(3), True, "must answer with \\(2, 6, 2, 2\\), not \\(2, 3, 2, 2\\)$"),
        (twice(5), None, "must answer with \\(2, 3, 2, 2\\), not \\(2, 5, 2, 2\\)$"),
    ):
        with pytest.raises(ValueError, match=said):
            model(answers, learned)(x, 1.0)
    with pytest.raises(ValueError, match="learned_variance must be True, False or None, not 'yes'"):
        model(twice(), "yes")
    for channels, other in ((6, 3), (3, 6)):
        network = [twice(channels)]
        undecided = model(lambda x, c, n=network: n[0](x, c), None)
        first = undecided(x, 1.0)
        assert undecided.learned_variance is (channels == 6)
        assert torch.equal(first, undecided(x, 1.0))
        network[0] = twice(other)  # the first answer has decided
        with pytest.raises(ValueError, match="the network must answer with"):
            undecided(x, 1.0)
    assert model(twice(), None).replace(learned_variance=True).learned_variance is True


def test_scalars_have_no_learned_variance():
    with pytest.raises(ValueError, match="no channels, and so no learned variance"):
        kdiff.Denoiser(lambda x, c: x, "edm", shape=(), learned_variance=True)
    undecided = kdiff.Denoiser(lambda x, c: x, "edm", shape=(), learned_variance=None)
    assert undecided(torch.ones(3), 1.0).shape == (3,) and undecided.learned_variance is False


def test_names_are_found_as_those_of_samplers_are():
    assert kdiff.precond("Sub-VP").config == {"name": "sub_vp"}
    assert kdiff.precond("EDM").name == "edm"
    for wrong in (3, None):
        with pytest.raises(TypeError, match="a name must be text"):
            kdiff.precond(wrong)


def test_c_noise_and_conditions_have_one_row_a_sample():
    network = Recorder()
    model = kdiff.Denoiser(network, "flow", shape=(3, 2, 2))
    labels = torch.tensor([1, -1])
    model(torch.ones(2, 3, 2, 2), 1.0, class_labels=labels)
    x, c_noise, given = network.given
    assert torch.equal(x, torch.full((2, 3, 2, 2), 0.5))
    assert torch.equal(c_noise, torch.tensor([0.5, 0.5]))
    assert given is labels


def test_the_range_may_be_narrowed():
    model = kdiff.Denoiser(Recorder(), "edm", shape=(3, 2, 2), sigma_min=0.01, sigma_max=50)
    assert (model.sigma_min, model.sigma_max) == (0.01, 50)
    assert kdiff.plan(model, steps=2).sigmas == [50, 0.01, 0]
