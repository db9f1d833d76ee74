"""Does a model denoise? A wrong parameterisation shows at once in its denoising error.

At noise level sigma the root mean square error of D(x0 + sigma n; sigma) against x0 is compared
with the error of a guess that knows only the data's mean and spread s: sigma s / sqrt(sigma^2 +
s^2), the error of a Gaussian's exact denoiser. Any trained network beats it; one that is read
wrongly (v as eps, timesteps off, images in [0, 1]) does not, at some noise level by far.

The level at which schedules begin, above the customary ones, is tested too. There an error of D of
the width of the data's range, 4 s, is allowed: for networks that predict eps it is in proportion to
sigma, and the steps that follow take most of it back.

On noise alone x0 = 0 stands for a plain grey image, and s for the spread of customary data. This
cannot show that a model is good. The exact denoiser of other data (digits on black, points on a
curve) is worse there than the guess, since it answers with its own data, far from 0. And what
answers with some sample, as a consistency model does, can be better. It does show two certain
faults: an error in proportion to sigma, since data have a size; and another reading that beats the
guess at all noise levels where this one does not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdiff.counts import whole_number
from kdiff.denoiser import Denoiser
from kdiff.latent import data_of, decodes
from kdiff.noise import Noise
from kdiff.preconditioners import precond

_SPREAD = 0.5  # of images in [-1, 1] (Karras et al. 2022); of latents it is 1
_LEVELS = (0.05, 0.2, 1.0, 5.0, 20.0)
_WRONG = 1.2  # how much worse than the guess is certainly wrong, on images
_WIDTH = 4.0  # of the data's range, in spreads
_SILENCE = 1e-3  # what a network of unit variance answers before it is trained is below
_INTERCHANGEABLE = ("eps", "v", "x0")
_DOUBTS = "its parameterisation, noise levels or range of values may be wrong"


@dataclass(frozen=True)
class Errors:
    """The RMSE of the model and of the guess at each noise level."""

    model: list[float]
    guess: list[float]

    @property
    def ratios(self) -> list[float]:
        """Infinite where an error is not finite."""
        ratios = [m / g for m, g in zip(self.model, self.guess, strict=True)]
        return [r if math.isfinite(r) else math.inf for r in ratios]

    @property
    def ratio(self) -> float:
        """The worst over the customary noise levels."""
        return max(self.ratios[: len(_LEVELS)])


@dataclass(frozen=True)
class Health:
    """`status`: good, doubtful or bad by the images; without, bad or unknown."""

    sigmas: list[float]
    noise: Errors
    images: Errors | None
    status: str
    verdict: str

    def record(self) -> dict[str, Any]:
        """As plain values; an error that is not finite is its name."""
        return _plain(asdict(self))


def health(model: Denoiser, images: np.ndarray | None = None, n: int = 8) -> Health:
    """The errors of `model` at five noise levels within its range and at its sigma_max, on `n`
    samples of noise and on `images`, uint8 `[N, H, W, 3]` of the model's size.

    Classes are taken in turn. If the errors of an eps, v or x0 network are too large, the verdict
    says which of the three it looks like. ValueError if the images are of another size.
    """
    n = whole_number("n", n, 1)
    clean = None if images is None else to_model(images, model)
    sigmas = levels(model)
    noise, on_images = _measure(model, sigmas, clean, n)
    broken = not_finite(model.network)
    if broken:
        status, verdict = "bad", f"its weights are not finite, {named(broken)}"
    elif not all(map(math.isfinite, noise.model + (on_images.model if on_images else []))):
        status, verdict = "bad", "what it answers is not finite"
        if model.dtype is not None:  # None: it has no weights that can be seen
            verdict += ", though its weights are"
    elif _answers_nothing(model, sigmas[len(_LEVELS) // 2], n):
        status = "bad"
        verdict = "it answers next to nothing, as networks do before they are trained"
    elif on_images is None or clean is None:
        status, verdict = _by_noise(model, sigmas, noise, n)
    else:
        status, verdict = _by_images(model, sigmas, on_images, clean, n)
    return Health(sigmas, noise, on_images, status, verdict)


def _by_images(
    model: Denoiser, sigmas: list[float], found: Errors, clean: Tensor, n: int
) -> tuple[str, str]:
    if found.ratio <= 1:
        verdict = "it denoises: on these images better than a Gaussian guess at every noise level"
        above = _above(sigmas, found, 1)
        status = "doubtful" if above and found.ratios[-1] > _WIDTH else "good"
        return status, f"{verdict}{above and f' up to {_LEVELS[-1]:g}; {above}'}"
    status = "bad" if found.ratio > _WRONG else "doubtful"
    does = "does not denoise" if status == "bad" else "may not denoise"
    verdict = (
        f"it {does}: on these images its error is up to {found.ratio:.3g} times a Gaussian guess's"
    )
    return status, f"{verdict}; {_looks_like(model, sigmas, clean, n) or _DOUBTS}"


def _by_noise(model: Denoiser, sigmas: list[float], found: Errors, n: int) -> tuple[str, str]:
    other = None if found.ratio <= 1 else _looks_like(model, sigmas, None, n)
    verdict = (
        f"it does not denoise: on noise alone its error is up to {max(found.ratios):.3g} times a "
        "Gaussian guess's"
    )
    if other:
        return "bad", f"{verdict}; {other}"
    if _grows(sigmas, found):
        return "bad", f"{verdict}, in proportion to the noise; {_DOUBTS}"
    so_far = "nothing speaks against it, but " if found.ratio <= 1 else ""
    verdict = f"{so_far}noise alone cannot tell whether it denoises; only data like its own can"
    above = _above(sigmas, found, _WIDTH)
    return "unknown", f"{verdict}{above and f'; {above}'}"


def _grows(sigmas: list[float], found: Errors) -> bool:
    """Whether the error at the end is a large part of the noise, outside the data's range, and has
    grown with the noise."""
    s, t, at_s, at_t = sigmas[-3], sigmas[-1], found.model[-3], found.model[-1]
    return found.ratios[-1] > _WIDTH and at_t > t / 4 and at_t / at_s > t / s / 2


def _above(sigmas: list[float], found: Errors, most: float) -> str:
    """A remark on the level at which schedules begin, if the error there is above `most`."""
    if len(sigmas) == len(_LEVELS) or found.ratios[-1] <= most:
        return ""
    better = max(_LEVELS[-1], sigmas[-1] / found.ratios[-1])  # the error is in proportion to sigma
    return (
        f"at {sigmas[-1]:.4g}, where schedules begin, its error is {found.ratios[-1]:.3g} times a "
        f"Gaussian guess's: sigma_max={better:.2g} may be better"
    )


def _looks_like(model: Denoiser, sigmas: list[float], clean: Tensor | None, n: int) -> str | None:
    """What an eps, v or x0 network predicts instead, if as that it beats the guess."""
    config = dict(model.precond.config or {})
    if config.get("name") not in _INTERCHANGEABLE:
        return None
    ratios = {}
    for name in _INTERCHANGEABLE:
        other = model.replace(precond=precond(**{**config, "name": name}))
        noise, on_images = _measure(other, sigmas, clean, n)
        ratios[name] = (on_images or noise).ratio
    best = min(ratios, key=ratios.__getitem__)
    if ratios[best] > 1:
        return None
    return f"it looks like a network that predicts {best}: load it with prediction={best!r}"


def not_finite(network: Any) -> list[str]:
    """The names of a module's parameters that are not finite, and of its buffers that are NaN
    (masks may be infinite)."""
    if not isinstance(network, nn.Module):
        return []
    parameters = [name for name, p in network.named_parameters() if not _wide(p).isfinite().all()]
    return parameters + [name for name, b in network.named_buffers() if b.isnan().any()]


def _wide(x: Tensor) -> Tensor:
    """In float32 if it has 8 bits: torch cannot test those for being finite."""
    return x.float() if x.itemsize == 1 else x


def named(tensors: list[str], most: int = 3) -> str:
    """`in 5 tensors: a, b, c, ..`"""
    first = ", ".join(tensors[:most]) + (", .." if len(tensors) > most else "")
    return f"in {len(tensors)} tensor{'s' * (len(tensors) > 1)}: {first}"


def _measure(
    model: Denoiser, sigmas: list[float], clean: Tensor | None, n: int
) -> tuple[Errors, Errors | None]:
    spread = 1.0 if decodes(model) else _SPREAD
    noise = _errors(model, torch.zeros(n, *model.shape), sigmas, spread)
    if clean is None:
        return noise, None
    spread = max(float(clean.std()), 1 / 127.5)  # images of one colour have none
    return noise, _errors(model, clean, sigmas, spread)


def _answers_nothing(model: Denoiser, sigma: float, n: int) -> bool:
    """Whether the network adds nothing of its own, as before it is trained, when its last layer is
    mostly zero. Some preconditioners alone, such as EDM's, are as good as the guess."""
    x = sigma * Noise(range(n), model.shape, device=model.device).initial()
    c = model.precond(sigma)
    own = _denoise(model, x, sigma) - c.c_skip * x
    return float(own.square().mean().sqrt()) < _SILENCE * abs(c.c_out)


def levels(model: Denoiser) -> list[float]:
    """Five noise levels within the model's range, the customary ones if it has them; and where its
    schedules begin, if that is above."""
    low, high = max(model.sigma_min, _LEVELS[0]), min(model.sigma_max, _LEVELS[-1])
    first = max(model.sigma_max, getattr(model, "sigma_end", None) or 0.0)
    above = [float(first)] if first > high else []
    if (low, high) == (_LEVELS[0], _LEVELS[-1]):
        return [*_LEVELS, *above]
    return [*(float(s) for s in np.geomspace(low, high, len(_LEVELS))), *above]


def to_model(images: np.ndarray, model: Denoiser) -> Tensor:
    """uint8 `[N, H, W, 3]` -> float `[N, C, H, W]` in [-1, 1]; of one channel, their mean.
    ValueError if they are not of the model's size, or its data are not images."""
    shape = model.shape
    if len(shape) != 3 or shape[0] not in (1, 3) or decodes(model):
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
    """D(x; sigma), with classes in turn."""
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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
