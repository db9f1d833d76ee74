"""What programs written for k-diffusion use beside its samplers, in `kdiff.compat.k_diffusion`
against k-diffusion itself, through what tools/make_k_diffusion_programs_golden.py and
tools/make_k_diffusion_networks_golden.py stored."""

import gzip
import importlib
import json
import math
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy import stats
from torch import nn

from kdiff.compat import k_diffusion as K
from kdiff.compat.k_diffusion.missing import MISSING
from kdiff.driver import NonFiniteError

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "k_diffusion_programs.json").read_text())
NETWORKS = json.loads(gzip.decompress((FOLDER / "k_diffusion_networks.json.gz").read_bytes()))
DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Modules that only hold parts of what `models` offers.
PARTS = [name for name in GOLDEN["names"] if name.startswith("models.")]


def start():
    return 14.6 * torch.arange(16, dtype=torch.float64).sin().reshape(2, 8)


@pytest.mark.parametrize(
    ("module", "name"),
    [(m, name) for m, names in GOLDEN["names"].items() if m not in PARTS for name in names],
)
def test_every_public_name_is_there_or_says_what_to_use(module, name):
    holder = getattr(K, module) if module else K
    reason = MISSING.get(module, {}).get(name)
    if reason is None:
        assert getattr(holder, name) is not None
        return
    assert name not in vars(holder)
    with pytest.raises(NotImplementedError) as error:
        getattr(holder, name)
    assert str(error.value) == f"kdiff has no k_diffusion.{module}.{name}: {reason}"
    assert len(reason) > 20 and "\n" not in reason
    with pytest.raises(NotImplementedError, match=f"{module}.{name}: "):
        exec(f"from kdiff.compat.k_diffusion.{module} import {name}")


def test_the_table_of_what_is_missing_has_no_other_names():
    for module, names in MISSING.items():
        parts = {part.removeprefix("models.") for part in PARTS} if module == "models" else set()
        assert set(names) <= {*GOLDEN["names"][module], *parts}
    assert {part.removeprefix("models.") for part in PARTS} <= set(MISSING["models"])


@pytest.mark.parametrize("module", [m for m in GOLDEN["names"] if m and m not in PARTS])
def test_other_names_are_attribute_errors(module):
    assert not hasattr(getattr(K, module), "no_such_name")
    with pytest.raises(AttributeError, match=r"no_such_name"):
        _ = getattr(K, module).no_such_name


PROGRAM = """
import kdiff.compat.k_diffusion
kdiff.compat.k_diffusion.install()
kdiff.compat.k_diffusion.install()

import types
import torch
import k_diffusion as K
import k_diffusion.external
import k_diffusion.sampling as sampling
from k_diffusion.sampling import sample_euler
from k_diffusion.external import CompVisDenoiser
from k_diffusion import utils, Denoiser
import safetensors.torch as safetorch

assert K is kdiff.compat.k_diffusion and sampling is K.sampling and utils is K.utils
assert k_diffusion.external.CompVisDenoiser is CompVisDenoiser is K.external.CompVisDenoiser
assert sample_euler is K.sampling.sample_euler and Denoiser is K.Denoiser

config = K.config.load_config("model.safetensors")
model_config = config["model"]
accelerator = types.SimpleNamespace(
    num_processes=1, is_main_process=True, gather=lambda x: x
)
inner_model = K.config.make_model(config).eval().requires_grad_(False)
inner_model.load_state_dict(safetorch.load_file("model.safetensors"))
model = K.config.make_denoiser_wrapper(config)(inner_model)

@torch.no_grad()
@K.utils.eval_mode(model)
def run():
    assert not model.training
    sigmas = K.sampling.get_sigmas_karras(3, model_config["sigma_min"], model_config["sigma_max"])
    def sample_fn(n):
        x = torch.randn([n, 3, *model_config["input_size"]]) * sigmas[0]
        return K.sampling.sample_lms(model, x, sigmas, disable=True)
    return K.evaluation.compute_features(accelerator, sample_fn, lambda x: x, 5, 2)

images = run()
for i, image in enumerate(images):
    K.utils.to_pil_image(image).save(f"out_{i}.png")
print(K.utils.n_params(inner_model), len(images))
"""


def weights(variant):
    def fill(shape):
        k = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
        scale = (len(k) // shape[0] if len(shape) > 1 else 4) ** -0.5
        return (k.sin() * scale).reshape(shape)

    return {
        key: torch.tensor(value, dtype=torch.float64) if value else fill(shape)
        for key, shape, value in NETWORKS["networks"][variant]["state"]
    }


def test_a_program_that_imports_k_diffusion_runs_after_install(tmp_path):
    config = NETWORKS["networks"]["image_v1"]["config"]
    tensors = {key: value.float() for key, value in weights("image_v1").items()}
    save_file(tensors, tmp_path / "model.safetensors", {"config": json.dumps(config)})
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    parameters = sum(
        value.numel()
        for key, value in tensors.items()
        if not key.endswith((".kernel", "timestep_embed.weight"))
    )
    assert result.stdout.split() == [str(parameters), "5"]
    assert Image.open(tmp_path / "out_4.png").size == (8, 8)


def test_install_leaves_the_real_one_alone(monkeypatch):
    real = types.ModuleType("k_diffusion")
    monkeypatch.setitem(sys.modules, "k_diffusion", real)
    with pytest.raises(RuntimeError, match="imported already"):
        K.install()
    assert sys.modules["k_diffusion"] is real
    assert "k_diffusion.sampling" not in sys.modules


def test_installed_submodules_are_never_imported_twice(monkeypatch):
    before = set(sys.modules)
    K.install()
    try:
        assert importlib.import_module("k_diffusion.utils") is K.utils
        with pytest.raises(ModuleNotFoundError, match="is not a package"):
            importlib.import_module("k_diffusion.models.flags")
        added = {name for name in sys.modules if name.split(".")[0] == "k_diffusion"}
        assert {id(sys.modules[name]) for name in added} <= {id(sys.modules[n]) for n in before}
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


def test_programs_replace_the_progress_bar_and_torch_of_sampling(monkeypatch):
    """AUTOMATIC1111's does: the first for its own bar, the second for noise by each seed."""

    class Hijacked:
        def __getattr__(self, name):
            return getattr(torch, name)

        def randn_like(self, x):
            return torch.ones_like(x)

    seen = []
    monkeypatch.setattr(
        K.sampling, "trange", lambda n, disable: (seen.append(i) or i for i in range(n))
    )
    monkeypatch.setattr(K.sampling, "torch", Hijacked())
    sigmas = K.sampling.get_sigmas_karras(4, 0.03, 14.6).double()
    model = lambda x, sigma: torch.zeros_like(x)  # noqa: E731
    ours = K.sampling.sample_euler_ancestral(model, start(), sigmas)
    ones = lambda s, t: torch.ones_like(start())  # noqa: E731
    expected = K.sampling.sample_euler_ancestral(model, start(), sigmas, noise_sampler=ones)
    assert torch.equal(ours, expected)
    assert seen == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("variant", NETWORKS["networks"])
def test_make_model(variant):
    golden = NETWORKS["networks"][variant]
    config = K.config.load_config(golden["config"])
    network = K.config.make_model(config).eval().double()
    network.load_state_dict(weights(variant))
    size = config["model"]["input_channels"], *config["model"]["input_size"]
    x = torch.arange(2 * math.prod(size), dtype=torch.float64).cos().reshape(2, *size)
    sigma = torch.tensor([0.3, 0.3], dtype=torch.float64)
    classes = config["dataset"]["num_classes"]
    extra = {"class_cond": torch.tensor([1, classes])} if classes else {}
    model = K.Denoiser(network, sigma_data=config["model"]["sigma_data"])
    expected = torch.tensor(golden["denoised"], dtype=torch.float64)
    torch.testing.assert_close(model(x, sigma, **extra).flatten()[::7], expected, rtol=0, atol=1e-8)
    if classes:
        with pytest.raises(ValueError, match="class_cond must be given"):
            model(x, sigma)


@pytest.mark.parametrize("name", NETWORKS["published"])
def test_make_model_has_the_names_of_the_published_configurations(name):
    golden = NETWORKS["published"][name]
    with torch.device("meta"):
        network = K.config.make_model(K.config.load_config(golden["config"]))
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert ours == {key: shape for key, shape, *_ in golden["state"]}


def test_make_model_refuses_what_kdiff_lacks(tmp_path):
    v1 = {"type": "image_transformer_v1", "width": 96}
    with pytest.raises(ValueError, match="no network 'image_transformer_v1'; it has image_v1 and"):
        K.config.make_model(K.config.load_config({"model": v1}))
    crossed = {**NETWORKS["networks"]["image_v1"]["config"]["model"], "cross_cond_dim": 8}
    with pytest.raises(ValueError, match="cross-attention"):
        K.config.make_model(K.config.load_config({"model": crossed}))
    with pytest.raises(ValueError, match="not complete: KeyError"):
        K.config.make_model(K.config.load_config({"model": {"type": "image_v1"}}))
    for bad in ({}, {"model": []}, {"model": {}}, {"model": {"type": "image_transformer_v2"}}):
        with pytest.raises(ValueError, match="not a k-diffusion config"):
            K.config.load_config(bad)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        K.config.load_config(tmp_path / "a.json")
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="no config in its metadata"):
        K.config.load_config(tmp_path / "a.safetensors")


def test_load_config(tmp_path):
    for case in GOLDEN["configs"]:
        given = json.dumps(case["given"])
        assert K.config.load_config(case["given"]) == case["loaded"]
        assert json.dumps(case["given"]) == given
        (tmp_path / "config.json").write_text(given)
        assert K.config.load_config(str(tmp_path / "config.json")) == case["loaded"]


@pytest.mark.parametrize("case", GOLDEN["densities"], ids=str)
def test_make_sample_density(case):
    given, name, keywords = case
    model = {**GOLDEN["configs"][0]["loaded"]["model"], "input_size": [8, 8]}
    model |= {"sigma_data": 0.5, "sigma_min": 0.01, "sigma_max": 80.0}
    made = K.config.make_sample_density({**model, "sigma_sample_density": given})
    assert made.func is getattr(K.utils, name)
    assert made.keywords == keywords
    with pytest.raises(ValueError, match="unknown sigma_sample_density 'x'"):
        K.config.make_sample_density({**model, "sigma_sample_density": {"type": "x"}})


@pytest.mark.parametrize("case", GOLDEN["draws"], ids=lambda c: f"{c['name']}-{c['dtype']}")
def test_densities_draw_the_same_numbers(case):
    dtype, strata = DTYPES[case["dtype"]], case["strata"]
    torch.manual_seed(1)
    with K.utils.enable_stratified(*(strata or (0, 1)), disable=strata is None):
        values = getattr(K.utils, case["name"])([2, 5], **case["settings"], dtype=dtype)
    assert values.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    if case["name"] == "rand_log_normal":
        tolerance = max(tolerance, 3e-7)  # k-diffusion rounds loc and scale to float32
    expected = torch.tensor(case["values"], dtype=torch.float64)
    torch.testing.assert_close(values.double(), expected, rtol=tolerance, atol=0)


def truncated(law, low, high):
    a, b = law.cdf(low), law.cdf(high)
    return lambda sigma: (law.cdf(sigma) - a) / (b - a)


def split(sigma, loc=-1.2, left=1.0, right=0.4):
    z = np.log(sigma) - loc
    below = 2 * left * stats.norm.cdf(np.minimum(z, 0) / left)
    return (below + 2 * right * (stats.norm.cdf(np.maximum(z, 0) / right) - 0.5)) / (left + right)


QUANTILES = {
    "rand_log_normal": ({"loc": -1.2, "scale": 1.2}, stats.lognorm(1.2, scale=math.exp(-1.2)).cdf),
    "rand_log_logistic": (
        {"loc": -0.7, "scale": 0.5, "min_value": 0.1, "max_value": 9.0},
        truncated(stats.fisk(2.0, scale=math.exp(-0.7)), 0.1, 9.0),
    ),
    "rand_log_uniform": (
        {"min_value": 0.01, "max_value": 80.0},
        stats.loguniform(0.01, 80.0).cdf,
    ),
    "rand_v_diffusion": ({"sigma_data": 0.5}, lambda s: np.arctan(s / 0.5) * 2 / np.pi),
    "rand_split_log_normal": ({"loc": -1.2, "scale_1": 1.0, "scale_2": 0.4}, split),
    # Without a shift it is the cosine schedule: v_diffusion between its ends.
    "rand_cosine_interpolated": (
        {"image_d": 64, "noise_d_low": 64, "noise_d_high": 64, "sigma_data": 0.5},
        lambda s: np.arctan(s / 0.5) * 2 / np.pi,
    ),
}


@pytest.mark.parametrize("name", QUANTILES)
def test_densities_have_their_quantiles(name):
    settings, cdf = QUANTILES[name]
    torch.manual_seed(0)
    values = getattr(K.utils, name)([20_000], **settings, dtype=torch.float64)
    assert stats.kstest(cdf(values.numpy()), "uniform").pvalue > 0.01
    if name != "rand_split_log_normal":
        with K.utils.enable_stratified():
            values = getattr(K.utils, name)([1000], **settings, dtype=torch.float64)
        ranks = np.sort(cdf(values.numpy()))
        assert np.abs(ranks - (np.arange(1000) + 0.5) / 1000).max() < 2.5e-3


def test_strata_of_processes_are_those_of_one():
    accelerator = types.SimpleNamespace(
        process_index=1,
        num_processes=2,
        step=3,
        gradient_state=types.SimpleNamespace(num_steps=2),
    )
    with K.utils.enable_stratified_accelerate(accelerator):
        u = K.utils.stratified_with_settings([5], dtype=torch.float64)
    assert torch.equal((u * 20).floor() % 4, torch.full([5], 3.0, dtype=torch.float64))
    assert not vars(K.utils.stratified_settings)
    with pytest.raises(ValueError, match="group must be from 0"):
        K.utils.stratified_uniform([3], 2, 2)


def test_losses():
    def network(x, sigma, return_variance=False):
        output = (x + sigma[:, None] / 3).sin()
        return (output, x.mean(1) / 9) if return_variance else output

    x, sigma = start(), torch.tensor([0.7, 0.033], dtype=torch.float64)
    layers = K.layers
    wrappers = {
        "soft-min-snr": layers.Denoiser(network, 0.5, "soft-min-snr"),
        "snr": layers.Denoiser(network, 0.5, "snr"),
        "variance": layers.DenoiserWithVariance(network, 0.5),
        "simple": layers.SimpleLossDenoiser(network, 0.5),
    }
    for key, wrapper in wrappers.items():
        expected = torch.tensor(GOLDEN["losses"][key], dtype=torch.float64)
        torch.testing.assert_close(wrapper.loss(x, x.cos(), sigma), expected, rtol=1e-12, atol=0)
    own = layers.Denoiser(network, 0.5, lambda sigma: sigma * 0 + 2)
    plain = layers.Denoiser(network, 0.5)
    assert torch.equal(own.loss(x, x, sigma), 2 * plain.loss(x, x, sigma))
    with pytest.raises(NotImplementedError, match="scales=1"):
        layers.Denoiser(network, scales=3).loss(x, x, sigma)
    with pytest.raises(ValueError, match="one of karras, soft-min-snr, snr"):
        layers.Denoiser(network, weighting="none")


def test_make_denoiser_wrapper():
    def made(**model):
        wrapper = K.config.make_denoiser_wrapper({"model": {"sigma_data": 0.5, **model}})
        assert wrapper(nn.Identity()).sigma_data == 0.5
        return wrapper.func, {k: v for k, v in wrapper.keywords.items() if k != "sigma_data"}

    assert made() == (K.layers.Denoiser, {"weighting": "karras", "scales": 1})
    assert made(has_variance=True) == (K.layers.DenoiserWithVariance, {"weighting": "karras"})
    assert made(loss_config="simple") == (K.layers.SimpleLossDenoiser, {})
    with pytest.raises(ValueError, match="simple without variance"):
        made(loss_config="simple", has_variance=True)


def test_fourier_features():
    torch.manual_seed(0)
    features = K.layers.FourierFeatures(2, 6, std=16.0)
    torch.manual_seed(0)
    weight = torch.randn(3, 2) * 16
    assert torch.equal(features.weight, weight)
    assert list(features.state_dict()) == ["weight"]
    angle = 2 * math.pi * torch.ones(4, 2) @ weight.T
    torch.testing.assert_close(
        features(torch.ones(4, 2)), torch.cat([angle.cos(), angle.sin()], -1)
    )
    with pytest.raises(ValueError, match="must be even"):
        K.layers.FourierFeatures(1, 3)


def test_figures():
    golden = GOLDEN["figures"]
    x, y = (torch.tensor(golden[key], dtype=torch.float64) for key in "xy")
    figures = {
        "fid": K.evaluation.fid(x, y),
        "kid": K.evaluation.kid(x, y),
        "kid, parts": K.evaluation.kid(x, y, max_size=20),
        "squared_mmd": K.evaluation.squared_mmd(x, y),
        "sqrtm_eig": K.evaluation.sqrtm_eig(x.T @ x),
        "polynomial_kernel": K.evaluation.polynomial_kernel(x[:2], y[:3]),
    }
    for key, figure in figures.items():
        tolerance = 1e-7 if key == "fid" else 1e-10  # k-diffusion adds 1e-8 to the diagonal
        expected = torch.tensor(golden[key], dtype=torch.float64)
        torch.testing.assert_close(figure, expected, rtol=tolerance, atol=0)
    assert K.evaluation.fid(x.float(), y.float()).dtype == torch.float32
    with pytest.raises(ValueError, match="square matrix"):
        K.evaluation.sqrtm_eig(x)


class Accelerator:
    num_processes, is_main_process = 1, False

    def gather(self, x):
        return x


def test_compute_features():
    sizes = []

    def sample(n):
        sizes.append(n)
        return torch.full([4, 2], float(len(sizes)))

    features = K.evaluation.compute_features(Accelerator(), sample, lambda x: x + 1, 7, 3)
    assert sizes == [3, 3, 1]
    assert features[:, 0].tolist() == [2, 2, 2, 3, 3, 3, 4]

    def ends(n):
        raise StopIteration

    with pytest.raises(ValueError, match="no samples"):
        K.evaluation.compute_features(Accelerator(), ends, lambda x: x, 7, 3)


def test_inception_looks_at_pictures_of_any_size(monkeypatch):
    seen = []

    class Network(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3)), None

    monkeypatch.setattr(K.evaluation, "load_inception", lambda: (Network(), ""))
    extractor = K.evaluation.InceptionV3FeatureExtractor()
    assert extractor(torch.full([2, 1, 20, 30], 3.0)).shape == (2, 3)
    assert seen[0].shape == (2, 3, 299, 299)
    assert torch.equal(seen[0], torch.full_like(seen[0], 127 / 128))  # 255, as (x - 128) / 128


def test_pictures():
    for mode, (pixels, tensor) in GOLDEN["pictures"].items():
        array = np.array(pixels, dtype=bool if mode == "1" else np.uint8)
        picture = Image.fromarray(array)
        assert picture.mode == mode
        ours = K.utils.from_pil_image(picture)
        torch.testing.assert_close(ours, torch.tensor(tensor), rtol=0, atol=1e-6)
    ramp = torch.linspace(-1.2, 1.2, 24)
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        tensor = ramp.repeat(channels, 1).reshape(channels, 4, 6)
        picture = K.utils.to_pil_image(tensor)
        assert picture.mode == mode
        assert np.asarray(picture).tolist() == GOLDEN["pictures"][mode][0]
        assert K.utils.to_pil_image(tensor[None]) == picture
    assert K.utils.to_pil_image(ramp.reshape(4, 6)).mode == "L"
    for shape in ([2, 3, 4, 4], [5, 4, 4], [4]):
        with pytest.raises(ValueError, match="one picture must be"):
            K.utils.to_pil_image(torch.zeros(shape))
    with pytest.raises(ValueError, match="'I;16' has no range"):
        K.utils.from_pil_image(Image.new("I;16", (4, 4)))


def test_modes_are_restored():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout())
    model[1].eval()
    with K.utils.eval_mode(model) as inside:
        assert inside is model and not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == [True, True, False]
    with pytest.raises(KeyError), K.utils.train_mode(model):
        raise KeyError
    assert [m.training for m in model.modules()] == [True, True, False]
    assert K.utils.n_params(model) == 9


def test_averages():
    for key, settings in (
        ("default", {}),
        ("long", {"power": 2 / 3, "max_value": 0.9999, "start_at": 2}),
    ):
        warmup = K.utils.EMAWarmup(**settings)
        for expected in GOLDEN["averages"][key]:
            assert warmup.get_value() == pytest.approx(expected, abs=1e-15)
            warmup.step()
        other = K.utils.EMAWarmup()
        other.load_state_dict(warmup.state_dict())
        assert other.get_value() == warmup.get_value()
    model, average = (nn.BatchNorm1d(2) for _ in range(2))
    nn.init.constant_(model.weight, 3.0)
    model.running_mean += 5
    K.utils.ema_update(model, average, 0.75)
    assert average.weight.tolist() == [1.5, 1.5] and average.running_mean.tolist() == [5, 5]
    with pytest.raises(ValueError, match="different names"):
        K.utils.ema_update(nn.Linear(2, 2), average, 0.5)
    assert K.utils.ema_update_dict({"a": 1.0}, {"a": 3.0, "b": 7.0}, 0.5) == {"a": 2.0, "b": 7.0}


def test_small_things_of_utils(tmp_path):
    for _ in range(2):
        K.utils.CSVLogger(tmp_path / "log.csv", ["step", "loss"]).write(1, 0.5)
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,0.5\n1,0.5\n"
    before = torch.backends.cuda.matmul.allow_tf32
    with K.utils.tf32_mode(matmul=not before):
        assert torch.backends.cuda.matmul.allow_tf32 is not before
    assert torch.backends.cuda.matmul.allow_tf32 is before
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", {"config": "x"})
    assert K.utils.get_safetensors_metadata(tmp_path / "a.safetensors") == {"config": "x"}
    pictures = {"image": [Image.new("L", (2, 3))], "label": [1]}
    assert K.utils.hf_datasets_augs_helper(pictures, lambda p: p.mode, "image") == {
        "image": ["RGB"]
    }


def test_linear_multistep_coefficients_are_adams_bashforths():
    t = [4.0, 3.0, 2.0, 1.0, 0.0]
    ours = [K.sampling.linear_multistep_coeff(4, t, 3, j) for j in range(4)]
    assert ours == pytest.approx([-55 / 24, 59 / 24, -37 / 24, 9 / 24], abs=1e-12)
    with pytest.raises(ValueError, match="order 3 needs 3 slopes"):
        K.sampling.linear_multistep_coeff(3, t, 1, 0)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_log_likelihood_of_a_gaussian(dtype):
    """Of data N(m, diag(v)). The Jacobian is diagonal, so any direction of signs is exact, and the
    ODE carries x to m + (x - m) r, with r^2 = (v + sigma_max^2) / (v + sigma_min^2)."""
    torch.manual_seed(0)
    mean = torch.tensor([0.5, -1.0, 0.25], dtype=dtype)
    variance = torch.tensor([0.04, 1.0, 0.25], dtype=dtype)

    def model(x, sigma):
        square = sigma[:, None] ** 2
        return (variance * x + square * mean) / (variance + square)

    x = mean + variance.sqrt() * torch.randn(5, 3, dtype=dtype)
    low, high = 0.01, 50.0
    r = ((variance + high**2) / (variance + low**2)).sqrt()
    prior = torch.distributions.Normal(0, high).log_prob(mean + (x - mean) * r)
    exact = (prior + r.log()).sum(1)
    ours, info = K.sampling.log_likelihood(model, x, low, high)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, exact, rtol=0, atol=2e-3)
    fine, more = K.sampling.log_likelihood(model, x, low, high, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(fine, exact, rtol=0, atol=5e-5)
    assert 10 < info["fevals"] < more["fevals"] < 1000
    # The prior is the data's own law at sigma_max but for its mean and width.
    law = torch.distributions.Normal(mean, (variance + low**2).sqrt()).log_prob(x).sum(1)
    far, _ = K.sampling.log_likelihood(model, x, low, 5000.0, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(far, law, rtol=0, atol=1e-3)


def test_log_likelihood_refuses():
    with pytest.raises(ValueError, match="sigma_max < inf must hold"):
        K.sampling.log_likelihood(lambda x, sigma: x, start(), 1.0, 0.5)
    with pytest.raises(NonFiniteError, match="cannot be integrated beyond sigma"):
        K.sampling.log_likelihood(lambda x, sigma: x * torch.nan, start(), 0.1, 0.5)
