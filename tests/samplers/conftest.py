"""Schedulers of the installed diffusers."""

import inspect
import sys

import numpy as np
import pytest
import torch

from diffusers_parity import BETAS, Wide, draws


@pytest.fixture
def make(monkeypatch):
    """Makes diffusers schedulers with the timesteps set, that compute in float64 (they cast their
    tables, and some the sample in each step, to float32) and draw the noises of `draws`."""

    import diffusers  # takes seconds

    def build(name, steps, wide=True, **config):
        kind = getattr(diffusers, name)
        module, noise = sys.modules[kind.__module__], draws()
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(noise), raising=False)
        for numbers in (torch, np) if wide else ():
            short = numbers.__name__.replace("numpy", "np")
            monkeypatch.setattr(module, short, Wide(numbers), raising=False)
        betas = BETAS if "beta_start" in inspect.signature(kind).parameters else {}
        scheduler = kind(**betas | config)
        scheduler.set_timesteps(steps)
        return scheduler

    return build
