"""Whatever can be sampled has all of `kdiff.Model`, also once it was copied, moved or changed."""

import copy
import inspect
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import kdiff
from kdiff.analytic import data_set
from kdiff.hashes import sha256_of_file
from kdiff.latent import LatentDenoiser, check_pictures, data_of
from kdiff.model import Model, Wrapper, as_model
from kdiff.model_check import health
from kdiff.models import find_model

SHAPE = (3, 4, 4)
LATENTS = (4, 2, 2)


class Network(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x, t, class_labels=None):
        labels = 0 if class_labels is None else class_labels.to(x)[:, None, None, None]
        return self.conv(x) + labels


class Decoder(nn.Module):
    """As much of diffusers' AutoencoderKL as a `LatentDenoiser` uses."""

    config = SimpleNamespace(scaling_factor=0.5, shift_factor=None)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 1)

    def decode(self, z, return_dict):
        return [self.conv(z)]


class Shifted(Wrapper):
    def __call__(self, x, sigma, **cond):
        return self.model(x, sigma, **cond) + 1


def denoiser():
    return kdiff.Denoiser(Network(), "eps", shape=SHAPE, classes=["a", "b"], name="small")


def latent():
    network = Network(channels=4)
    return LatentDenoiser(network, "eps", shape=LATENTS, classes=["a"], vae=Decoder(), name="lat")


MODELS = {
    "denoiser": denoiser,
    "wrap": lambda: kdiff.wrap(Network(), "v", shape=SHAPE, null_class=2, classes=2),
    "latent": latent,
    "guided": lambda: kdiff.guide(denoiser(), "cfg", scale=2),
    "guided twice": lambda: kdiff.guide(kdiff.guide(denoiser(), "cfg", scale=2), "cfg", scale=3),
    "guided latent": lambda: kdiff.guide(latent(), "cfg", scale=2),
    "wrapper": lambda: Shifted(denoiser()),
    "wrapper of guided": lambda: Shifted(kdiff.guide(denoiser(), "cfg")),
    "analytic": lambda: as_model(data_set(torch.eye(48).reshape(48, *SHAPE))),
}
CHANGES = {
    "itself": lambda model: model,
    "pickled": lambda model: pickle.loads(pickle.dumps(model)),
    "copied": copy.copy,
    "deeply copied": copy.deepcopy,
    "moved": lambda model: model.to("cpu", torch.float64) if hasattr(model, "to") else model,
    "replaced": lambda model: model.replace(name="new") if hasattr(model, "replace") else model,
}


def the_protocol():
    members = {name for name in vars(Model) if not name.startswith("_") or name == "__call__"}
    properties = {name for name in members if isinstance(vars(Model)[name], property)}
    return properties, members - properties


def said(model):
    """All that it says, as far as that can be compared."""
    properties, _ = the_protocol()
    record = {k: v for k, v in model.record().items() if k != "name"}
    kept = {key: getattr(model, key) for key in properties - {"name", "dtype"}}
    return kept, record, model.evaluations(1.0)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_whole_protocol(name, change):
    original = MODELS[name]()
    expected = said(original)
    model = CHANGES[change](original)
    properties, methods = the_protocol()
    assert len(properties) >= 10 and {"decode", "evaluations", "record"} < methods
    for key in properties | methods:
        assert hasattr(model, key), key
    assert all(callable(getattr(model, key)) for key in methods)
    assert as_model(model) is model
    assert said(model) == expected
    assert model.record().keys() >= {"name", "sha256"} and model.record()["name"] == model.name
    assert isinstance(model.device, torch.device)
    assert isinstance(model.memory_format, torch.memory_format)
    cond = {"class_labels": torch.zeros(2, dtype=torch.long)} if model.classes else {}
    x = torch.randn(
        2, *model.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    answers = [m(x, 3.0, **cond) for m in (model, MODELS[name]())]
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5)
    assert model.decode(x.float()).shape == (2, *((3, 2, 2) if "latent" in name else SHAPE))


def test_the_protocol_is_what_a_denoiser_is_typed_as():
    model: Model = denoiser()
    hints = inspect.signature(Model.__call__).parameters
    assert isinstance(model(torch.zeros(1, *SHAPE), 1.0), Tensor) and "cond" in hints


def test_what_is_replaced_in_a_guided_model_stays_guided():
    model = MODELS["wrapper of guided"]().replace(name="other", sigma_max=7.0)
    assert isinstance(model, Shifted) and (model.name, model.sigma_max) == ("other", 7.0)
    assert model.evaluations(1.0) == 2
    assert model.record()["guidance"] == [{"name": "cfg", "options": {"scale": 1.5}}]
    assert MODELS["guided"]().replace("v").precond.name == "v"


# --- the files of a model ---


def test_a_record_has_the_hash_of_the_file_however_it_was_loaded():
    expected = sha256_of_file(find_model("mnist"))
    for told in ({}, {"shape": [1, 28, 28]}, {"precond": {"name": "edm"}}):  # none can be hashed
        model = kdiff.load("mnist", **told)
        for one in (model, kdiff.guide(model, "cfg"), pickle.loads(pickle.dumps(model))):
            assert one.record()["sha256"] == expected
    assert denoiser().record() == {"name": "small", "sha256": None}


# --- pictures and latents, whatever stands around the model ---


@pytest.mark.parametrize("around", [lambda m: m, Shifted, lambda m: kdiff.guide(m, "cfg")])
def test_latents_with_a_decoder_are_pictures(around):
    model = around(latent())
    check_pictures(model)
    assert data_of(model) == "4 x 2 x 2 latents"
    z = torch.randn(2, *LATENTS)
    torch.testing.assert_close(model.decode(z), latent().decode(z))
    bare = around(kdiff.wrap(lambda x, t, **c: x, shape=LATENTS, classes=1, name="bare"))
    with pytest.raises(ValueError, match="bare makes 4 x 2 x 2, not pictures of 1 or 3 channels"):
        check_pictures(bare)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((), "numbers"),
        ((5,), "5"),
        ((16, 3), "16 x 3"),
        ((2, 100), "2 x 100"),
        ((3, 8, 4, 4), "3 x 8 x 4 x 4"),
        (None, "data of a shape that it does not say"),
    ],
)
def test_other_data_are_not_pictures(shape, said):
    model = as_model(lambda x, sigma: x)
    model.f.shape = shape
    with pytest.raises(ValueError) as caught:
        check_pictures(model)
    assert f"unnamed makes {said}, not pictures" in str(caught.value)


def test_the_spread_of_guided_latents_is_that_of_latents():
    found, around = (health(m, n=2) for m in (latent(), Shifted(latent())))
    assert around.noise.guess == found.noise.guess
    assert found.noise.guess[-1] > 1.5 * health(denoiser(), n=2).noise.guess[-1]
