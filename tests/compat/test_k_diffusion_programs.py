"""What programs written for k-diffusion use beside its samplers, in `kdiff.compat.k_diffusion`
against k-diffusion itself, through what tools/make_k_diffusion_programs_golden.py and
tools/make_k_diffusion_networks_golden.py stored."""

import ast
import gzip
import importlib
import json
import math
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kdiff.compat import k_diffusion as K
from kdiff.compat.k_diffusion._missing import MISSING
from places import GOLDEN

FOLDER = GOLDEN
GOLDEN = json.loads((FOLDER / "k_diffusion_programs.json").read_text())
NETWORKS = json.loads(gzip.decompress((FOLDER / "k_diffusion_networks.json.gz").read_bytes()))
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


def defined(path):
    """The public names that a module's own lines make."""
    for line in ast.parse(path.read_text()).body:
        targets = getattr(line, "targets", [getattr(line, "target", line)])
        names = [getattr(target, "id", getattr(target, "name", "_")) for target in targets]
        yield from (name for name in names if not name.startswith("_"))


def test_there_are_no_other_public_names():
    """Names that kdiff adds, of modules or in them, begin with an underscore."""
    folder = Path(K.__file__).parent
    modules = {path.stem: path for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert modules.keys() == {m for m in GOLDEN["names"] if m} - {*PARTS}
    for module, path in modules.items():
        names = {*defined(path), *getattr(getattr(K, module), "__all__", ())}
        assert names <= {*GOLDEN["names"][module]}
    assert list(defined(folder / "__init__.py")) == ["install"]


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
from pathlib import Path
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
    """AUTOMATIC1111 replaces the first for its own bar, and the second for noise by each seed."""

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
    with pytest.raises(ValueError, match="a config is a dict, as load_config returns it"):
        K.config.make_model("config.json")
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
    with pytest.raises(ValueError, match="the config has no mean or loc"):
        K.config.make_sample_density({**model, "sigma_sample_density": {"type": "lognormal"}})
    with pytest.raises(ValueError, match="unknown sigma_sample_density 'x'"):
        K.config.make_sample_density({**model, "sigma_sample_density": {"type": "x"}})


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
