"""score_sde_pytorch's checkpoints: golden/score_sde.json.gz has the names in its files and what its
code computes, made by tools/make_score_sde_golden.py. The files are written here, as it does."""

import gzip
import json
from functools import partial

import pytest
import torch

import kdiff
import places
from kdiff.checkpoints import native, score_sde
from kdiff.networks import SongUNet
from kdiff.samplers.vp import vp_sigma

GOLDEN = json.loads(gzip.decompress((places.GOLDEN / "score_sde.json.gz").read_bytes()))
SHAPE = (3, 8, 8)


def fill(shape):
    numel = torch.Size(shape).numel()
    k = torch.arange(1, numel + 1, dtype=torch.float64)
    scale = (numel // shape[0] if len(shape) > 1 else 4) ** -0.5
    return (k.sin() * scale).reshape(shape)


def contents(variant):
    """What `save_checkpoint` saves; the trained weights differ from their moving average."""
    golden = GOLDEN["networks"][variant]
    tensors = {key: fill(shape) for key, shape in golden["model"]}
    tensors["sigmas"] = torch.linspace(50.0, 0.01, 1000)
    trained = set(golden["trained"])
    model = {f"module.{k}": v + (0.1 if k in trained else 0) for k, v in tensors.items()}
    shadow = [tensors[key] for key in golden["trained"]]
    return {
        "optimizer": {"state": {0: {"step": 7, "exp_avg": shadow[0]}}, "param_groups": []},
        "model": model,
        "ema": {"decay": 0.9999, "num_updates": 7, "shadow_params": shadow},
        "step": 7,
    }


def saved(tmp_path, variant="vpsde", change=lambda saved: None):
    path = tmp_path / "checkpoint_8.pth"
    what = contents(variant)
    change(what)
    torch.save(what, path)
    return path


@pytest.mark.parametrize("variant", GOLDEN["networks"])
def test_denoised_is_that_of_the_original(variant, tmp_path):
    path = saved(tmp_path, variant)
    sde = variant.split(",")[0]
    told = {} if sde in ("vpsde", "vesde") else {"sde": sde}  # these two are found out
    model = kdiff.load(path, shape=SHAPE, **told).to(dtype=torch.float64)
    assert model.facts["format"] == "score_sde_pytorch" and model.shape == SHAPE
    assert sde in model.facts["parameterisation"]
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float64).cos().reshape(2, *SHAPE)
    for result in GOLDEN["networks"][variant]["results"]:
        with torch.no_grad():
            y = model(result["x_scale"] * x + result["x_shift"], result["sigma"])
        expected = torch.tensor(result["denoised"], dtype=torch.float64)
        error = (y.flatten()[::11] - expected).abs().max() / expected.abs().max()
        assert error < 1e-5  # float32 embeddings, and weights loaded in float32


@pytest.mark.parametrize("name", GOLDEN["published"])
def test_published_networks(name):
    """Each tensor of the original finds its place, and none is left over or missing."""
    golden = GOLDEN["published"][name]
    tensors = {key: torch.empty(shape, device="meta") for key, shape in golden["model"]}
    modules = score_sde._modules(tensors)
    settings = score_sde._settings(modules, None)
    renamed = score_sde._renamed(modules, partial(SongUNet, **settings))
    with torch.device("meta"):
        network = SongUNet(**settings)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in renamed.items()} == shapes
    assert sum(p.numel() for p in network.parameters()) == golden["trained"]
    assert settings["img_resolution"] == 32 and settings["attn_resolutions"] == [16]


@pytest.mark.parametrize("variant", GOLDEN["networks"])
def test_converts_to_kdiffs_own_format(variant, tmp_path):
    sde = variant.split(",")[0]
    model = kdiff.load(saved(tmp_path, variant), shape=SHAPE, sde=sde)
    path = tmp_path / "own.safetensors"
    native.save(path, model.network.state_dict(), native.describe(model), torch.float32)
    own = kdiff.load(path)
    assert (own.sigma_min, own.sigma_max, own.sigmas) == (
        model.sigma_min,
        model.sigma_max,
        model.sigmas,
    )
    x = fill((2, *SHAPE)).float()
    for sigma in (0.02, 1.0, 40.0):
        assert torch.equal(own(x, sigma), model(x, sigma))


def test_ranges_are_those_of_images_from_minus_one_to_one(tmp_path):
    model = kdiff.load(saved(tmp_path, "vesde"), shape=SHAPE)
    assert (model.sigma_min, model.sigma_max) == pytest.approx((0.02, 100.0))
    model = kdiff.load(saved(tmp_path, "vpsde"))
    assert model.sigma_max == pytest.approx(float(vp_sigma(1.0)))
    assert model.shape == (3, 32, 32)  # attention one level down: at 16 x 16


def test_sub_vp_at_its_own_noise_levels():
    process = kdiff.precond("sub_vp")
    for t in (1e-3, 0.3, 1.0):
        alpha = 1 / (1 + float(vp_sigma(t)) ** 2) ** 0.5
        _, c_out, c_in, c_noise = process((1 - alpha**2) / alpha)
        assert c_in == pytest.approx(alpha, rel=1e-12)
        assert c_out == pytest.approx(-(1 - alpha**2) / alpha, rel=1e-12)
        assert c_noise == pytest.approx(999 * t, rel=1e-9)


def without(key):
    def change(what):
        del what["model"][f"module.{key}"]
        what["ema"]["shadow_params"].pop()

    return change


def input_skip(what):
    for part in ("weight", "bias"):
        what["model"][f"module.all_modules.99.Conv_0.{part}"] = torch.ones(1)
        what["ema"]["shadow_params"].append(torch.ones(1))


def not_average(what):
    what["ema"] = {"shadow_params": what["ema"]["shadow_params"][1:]}


def claimed(what):
    """Views of one number that say they are 80 GB."""
    key = next(key for key in what["model"] if key.endswith("NIN_0.W"))
    at = GOLDEN["networks"]["vpsde"]["trained"].index(key.removeprefix("module."))
    what["ema"]["shadow_params"][at] = torch.zeros(1).expand(10**5, 2 * 10**5)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"sde": "vesde"}, lambda what: None, "can be vpsde, subvpsde or vpsde-discrete, not"),
        ({"sde": "ddpm"}, lambda what: None, "not 'ddpm'"),
        ({"shape": (1, 8, 8)}, lambda what: None, r"shape must be \(3, height, width\)"),
        ({}, without("all_modules.3.Conv_0.bias"), "checkpoint_8.pth"),
        ({}, claimed, "not stored in the file"),
        ({}, input_skip, "input_skip is not supported"),
        ({}, not_average, r"no ema.shadow_params for a model.all_modules"),
        ({}, lambda what: what.pop("ema"), r"no ema.shadow_params"),
        ({}, lambda what: what.update(ema=[1]), r"no ema.shadow_params"),
    ],
)
def test_refused_in_one_line(options, change, message, tmp_path):
    path = saved(tmp_path, change=change)
    with pytest.raises(ValueError, match=message) as caught:
        kdiff.load(path, **options)
    assert "\n" not in str(caught.value)
