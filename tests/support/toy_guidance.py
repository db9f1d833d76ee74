"""Guidance that commands are tested with, and small files of models with three classes."""

from contextlib import contextmanager
from typing import Annotated

import torch

import kdiff
from kdiff.checkpoints import native
from kdiff.conditions import own
from kdiff.guidance import GUIDANCE, guidance
from kdiff.networks import SongUNet
from kdiff.networks.openai_unet import OpenAIUNet
from kdiff.options import Option
from small_networks import fill

SMALL = {"model_channels": 16, "channel_mult": [1], "num_blocks": 1, "label_dim": 3}


@contextmanager
def registered():
    before, loads = dict(GUIDANCE), []

    def load(model):
        if not isinstance(model, str):
            return model
        loads.append(model)
        return kdiff.load(model)

    @guidance(
        "above",
        paper="a test",
        asks=lambda inner, sigma, *, low: inner if sigma > low else frozenset({"conditional"}),
    )
    def above(model, *, low: Annotated[float, Option("no guidance up to here", 0)] = 1.0):
        bare = kdiff.guidance.unguided(model)
        return lambda x, sigma, **cond: (model if sigma > low else bare)(x, sigma, **cond)

    @guidance(
        "beside",
        paper="a test",
        asks=lambda inner, sigma, **options: inner | {"other"},
        loads={"model": load},
        refuses=lambda plan, **_: None if plan.sampler.name == "euler" else "is right for euler",
    )
    def beside(inner, /, *, model: Annotated[object, Option("a model's file")] = None):
        if inner.shape != model.shape:
            raise ValueError(f"{model.name} has another shape")
        return lambda x, s, **cond: 2 * inner(x, s, **cond) - model(x, s, **own(cond))

    def always():
        return True

    @guidance(
        "both",
        paper="a test",
        asks=lambda inner, sigma: inner | {"unconditional", "nothing"},
        needs_null_class=always,
        needs_negative=always,
    )
    def both(model):
        return model

    @guidance("nobody", paper="a test", needs_null_class=always)
    def nobody(model):
        return lambda x, sigma, **cond: model(x, sigma, **kdiff.guidance.empty(cond))

    yield loads
    for name in GUIDANCE.keys() - before.keys():
        del GUIDANCE[name]


def with_classes(path, start=0, side=8):
    """A kdiff/1 file; another `start` makes other weights."""
    network = SongUNet(side, **SMALL)
    fill(network)
    network.map_label.weight.data *= 30_000 * (1 + start)  # so that classes differ
    return saved(path, network, side)


def without_null_class(path, side=8):
    network = OpenAIUNet(32, [1], 1, [], num_classes=3)
    fill(network)
    network.label_emb.weight.data *= 3e7
    return saved(path, network, side)


def saved(path, network, side):
    model = kdiff.Denoiser(network, "edm", shape=(3, side, side), classes="abc", name=path.stem)
    native.save(path, network.state_dict(), native.describe(model), torch.float32)
    return path


def without_classes(path, side=8):
    network = SongUNet(side, **{**SMALL, "label_dim": 0})
    fill(network)
    model = kdiff.Denoiser(network, "edm", shape=(3, side, side))
    native.save(path, network.state_dict(), native.describe(model), torch.float32)
    return path
