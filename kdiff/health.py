"""Does a model denoise? A wrong parameterisation shows at once in its denoising error.

At noise level sigma the root mean square error of D(x0 + sigma n; sigma) against x0 is set beside
that of a guess that knows only the data's mean and spread s: sigma s / sqrt(sigma^2 + s^2), what a
Gaussian's exact denoiser gets. Any trained network beats it; one that is read wrongly (v as eps,
timesteps off, images in [0, 1]) does not, at some noise level by far.

On noise alone x0 = 0 stands for a plain grey image, and s for that of customary data.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdiff.denoiser import Denoiser
from kdiff.latent import LatentDenoiser, data_of
from kdiff.noise import Noise
from kdiff.precond import precond
from kdiff.samplers.counts import whole_number

SPREAD = 0.5  # of images in [-1, 1] (Karras et al. 2022); of latents it is 1
LEVELS = (0.05, 0.2, 1.0, 5.0, 20.0)
# How much worse than the guess is certainly wrong. A plain grey image need not be like the data.
WRONG_ON_IMAGES, WRONG_ON_NOISE = 1.2, 2.0
SILENCE = 1e-3  # what a network of unit variance answers before it is trained is below
INTERCHANGEABLE = ("eps", "v", "x0")


@dataclass(frozen=True)
class Errors:
    """RMSE at each noise level, and that of the guess."""

    model: list[float]
    guess: list[float]

    @property
    def ratio(self) -> float:
        """The worst over the noise levels; infinite if an error is not finite."""
        ratios = [m / g for m, g in zip(self.model, self.guess, strict=True)]
        return max(r if math.isfinite(r) else math.inf for r in ratios)


@dataclass(frozen=True)
class Health:
    """`status`: good, doubtful or bad, by the images if there are any, else by noise alone."""

    sigmas: list[float]
    noise: Errors
    images: Errors | None
    status: str
    verdict: str

    def record(self) -> dict[str, Any]:
        return asdict(self)


def health(model: Denoiser, images: np.ndarray | None = None, n: int = 8) -> Health:
    """The errors of `model` at five noise levels within its range, on `n` samples of noise and on
    `images`, uint8 `[N, H, W, 3]` of the model's size.

    Classes are taken in turn. If the errors of an eps, v or x0 network are too large, the verdict
    says which of the three it looks like. ValueError if the images are of another size.
    """
    n = whole_number("n", n, 1)
    clean = None if images is None else to_model(images, model)
    sigmas = levels(model)
    noise, on_images = _measure(model, sigmas, clean, n)
    decisive, wrong = (noise, WRONG_ON_NOISE) if on_images is None else (on_images, WRONG_ON_IMAGES)
    where = "noise alone" if on_images is None else "these images"
    if answers_nothing(model, sigmas[len(sigmas) // 2], n):
        verdict = "it answers next to nothing, as networks do before they are trained"
        return Health(sigmas, noise, on_images, "bad", verdict)
    if decisive.ratio <= 1:
        verdict = f"it denoises: on {where} better than a Gaussian guess at every noise level"
        return Health(sigmas, noise, on_images, "good", verdict)
    status = "bad" if decisive.ratio > wrong else "doubtful"
    does = "does not denoise" if status == "bad" else "may not denoise"
    verdict = (
        f"it {does}: on {where} its error is up to {decisive.ratio:.3g} times a Gaussian guess's"
    )
    return Health(
        sigmas, noise, on_images, status, f"{verdict}; {_advice(model, sigmas, clean, n)}"
    )


def _advice(model: Denoiser, sigmas: list[float], clean: Tensor | None, n: int) -> str:
    config = dict(model.precond.config or {})
    if config.get("name") in INTERCHANGEABLE:
        ratios = {}
        for name in INTERCHANGEABLE:
            other = model.replace(precond=precond(**{**config, "name": name}))
            noise, on_images = _measure(other, sigmas, clean, n)
            ratios[name] = (on_images or noise).ratio
        best = min(ratios, key=ratios.__getitem__)
        if ratios[best] <= 1:
            return f"it looks like a network that predicts {best}: load it with prediction={best!r}"
    return "its parameterisation, noise levels or range of values may be wrong"


def _measure(
    model: Denoiser, sigmas: list[float], clean: Tensor | None, n: int
) -> tuple[Errors, Errors | None]:
    spread = 1.0 if isinstance(model, LatentDenoiser) else SPREAD
    noise = _errors(model, torch.zeros(n, *model.shape), sigmas, spread)
    if clean is None:
        return noise, None
    spread = max(float(clean.std()), 1 / 127.5)  # images of one colour have none
    return noise, _errors(model, clean, sigmas, spread)


def answers_nothing(model: Denoiser, sigma: float, n: int) -> bool:
    """Whether the network's own part of what is denoised is nil, as its last layer mostly is
    before it is trained. Some preconditioners alone, such as EDM's, are as good as the guess."""
    x = sigma * Noise(range(n), model.shape, device=model.device).initial()
    c = model.precond(sigma)
    own = _denoise(model, x, sigma) - c.c_skip * x
    return float(own.square().mean().sqrt()) < SILENCE * abs(c.c_out)


def levels(model: Denoiser) -> list[float]:
    """Five noise levels within the model's range: the customary ones if it has them."""
    low, high = max(model.sigma_min, LEVELS[0]), min(model.sigma_max, LEVELS[-1])
    if (low, high) == (LEVELS[0], LEVELS[-1]):
        return list(LEVELS)
    return [float(s) for s in np.geomspace(low, high, len(LEVELS))]


def to_model(images: np.ndarray, model: Denoiser) -> Tensor:
    """uint8 `[N, H, W, 3]` -> float `[N, C, H, W]` in [-1, 1]; of one channel, their mean.
    ValueError if they are not of the model's size, or its data are no images."""
    shape = model.shape
    if len(shape) != 3 or shape[0] not in (1, 3) or isinstance(model, LatentDenoiser):
        raise ValueError(
            f"{model.name} works on {data_of(model)}, not on images: inspect it without"
        )
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    if shape[0] == 1:
        x = x.mean(1, keepdim=True)
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"the images are {list(x.shape[1:])}, the model's are {list(shape)}")
    return x


@torch.inference_mode()
def _denoise(model: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """Of classes in turn."""
    cond = {}
    if model.classes:
        labels = [i % len(model.classes) for i in range(len(x))]
        cond["class_labels"] = torch.tensor(labels, device=x.device)
    return model(x, sigma, **cond)


def _errors(model: Denoiser, clean: Tensor, sigmas: list[float], spread: float) -> Errors:
    clean = clean.to(model.device)
    noise = Noise(range(len(clean)), model.shape, device=model.device).initial()
    errors = [_denoise(model, clean + s * noise, s) - clean for s in sigmas]
    return Errors(
        [float(e.square().mean().sqrt()) for e in errors],
        [s * spread / math.hypot(s, spread) for s in sigmas],
    )
