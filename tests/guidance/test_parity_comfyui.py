"""CFG++ against ComfyUI's samplers of that name, through values that
tools/make_zoo_comfyui_golden.py made with them in float64. docs/parity.md says what differs."""

import json

import pytest
import torch

import kdiff
import places
from kdiff.analytic import GaussianMixture
from kdiff.guidance import cfg_pp

GOLDEN = json.loads((places.GOLDEN / "zoo_comfyui.json").read_text())
SCALE = GOLDEN["guidance"]["scale"]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


class Mixtures:
    """The stored problem: with a class the mixture, without one the mixture of other weights."""

    classes = ("the one",)
    shape = (3,)
    sigma_min, sigma_max = 0.02, 20.0

    def __init__(self):
        model = {key: tensor(value) for key, value in GOLDEN["model"].items()}
        self.conditional = GaussianMixture(**model)
        weights = tensor(GOLDEN["guidance"]["unconditional"])
        self.unconditional = GaussianMixture(**model | {"weights": weights})

    def __call__(self, x, sigma, class_labels):
        known = class_labels[:, None] >= 0
        return torch.where(known, self.conditional(x, sigma), self.unconditional(x, sigma))


def sampled(sample, sampler, options):
    """With lambda, ours, equal to the scale, theirs."""
    sigmas = GOLDEN["grids"][sample["grid"]]
    model = cfg_pp(Mixtures(), SCALE)
    plan = kdiff.plan(model, sampler, sigmas=sigmas, options=options)
    labels = torch.zeros(2, dtype=torch.long)
    start, noise = sigmas[0] * tensor(GOLDEN["start"]), kdiff.Noise([0, 1], (3,))
    *_, last = kdiff.drive(model, plan, start, noise, class_labels=labels)
    return last.x


def cases(*names, **options):
    for sample in GOLDEN["samples"]:
        if sample["name"] in names and sample["options"] == options:
            yield pytest.param(sample, id=f"{sample['name']}-{sample['grid']}")


@pytest.mark.parametrize("sampler", ["euler", "ddim", "euler_ancestral"])
@pytest.mark.parametrize(
    "sample", [*cases("euler_cfg_pp"), *cases("euler_ancestral_cfg_pp", eta=0.0)]
)
def test_cfg_pp(sample, sampler):
    result = sampled(sample, sampler, {} if sampler == "euler" else {"eta": 0.0})
    expected = tensor(sample["result"])
    assert (result - expected).abs().max() < 1e-11 * expected.abs().max()


@pytest.mark.parametrize(
    "sample", [*cases("euler_ancestral_cfg_pp", eta=0.5), *cases("dpmpp_2m_cfg_pp")]
)
def test_what_has_no_counterpart_is_refused(sample):
    name = sample["name"].removesuffix("_cfg_pp")
    with pytest.raises(ValueError, match="cfg_pp is right for euler, and for ddim and euler_anc"):
        sampled(sample, name, sample["options"])
