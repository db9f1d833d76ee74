"""The training behind `tools/train_classifier.py --noisy`: p(y | x0 + sigma n) for all noise levels
of a diffusion model, for classifier guidance.

The labels are not smoothed, and images lose no squares: the gradient of log p should point to what
classes look like, not to a blunted form of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from classifier_loop import flip_and_shift, make_optimizers, minimize
from kdiff.classifiers import Classifier
from kdiff.classifiers.native import PRECOND
from kdiff.networks.noisy_classifier import NoisyClassifier

WIDTHS = (32, 64, 128, 160)
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
LN_MEAN, LN_STD = -0.2, 1.5  # between most of what tells classes apart and nearly nothing
ELSEWHERE = 1 / 8  # of the noise levels: log-uniform, so that no level is strange
TABLE = (0.002, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 80.0)


def training_sigmas(n: int) -> Tensor:
    """ln sigma is normal, for some uniform; stratified, one in each n-quantile."""
    quantiles = (torch.randperm(n, dtype=torch.float64) + torch.rand(n, dtype=torch.float64)) / n
    normal = LN_MEAN + LN_STD * torch.special.ndtri(quantiles)
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    uniform = low + (high - low) * torch.rand(n, dtype=torch.float64)
    chosen = torch.where(torch.rand(n) < ELSEWHERE, uniform, normal.clamp(low, high))
    return chosen.exp().float()


def noisy(x: Tensor, noise: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """What the network is given for x + sigma noise: c_in times this, and c_noise."""
    rows = torch.tensor([PRECOND(sigma)[2:] for sigma in sigmas.tolist()])
    c_in, c_noise = rows.T
    scaled = c_in[:, None, None, None] * (x + sigmas[:, None, None, None] * noise)
    return scaled.contiguous(memory_format=torch.channels_last), c_noise


def train(
    images: Tensor, labels: Tensor, classes: int, epochs: int, batch: int, lr: float
) -> NoisyClassifier:
    network = NoisyClassifier(images.shape[1:], classes, WIDTHS)
    network = network.to(memory_format=torch.channels_last)

    def loss(index: Tensor) -> Tensor:
        x = flip_and_shift(images[index])
        sigmas = training_sigmas(len(index))
        return F.cross_entropy(network(*noisy(x, torch.randn_like(x), sigmas)), labels[index])

    optimizers = make_optimizers(network, network.blocks, lr)
    minimize(loss, optimizers, len(images), epochs, batch, lr)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def by_sigma(
    classifier: Classifier, images: Tensor, labels: Tensor, sigmas: Sequence[float] = TABLE
) -> list[dict[str, float]]:
    """Accuracy and log loss at each noise level, every time with the same noise."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    parts = list(zip(images.split(500), noise.split(500), strict=True))
    rows = []
    for sigma in sigmas:
        logits = torch.cat([classifier(x + sigma * n, sigma) for x, n in parts])
        accuracy = (logits.argmax(1) == labels).double().mean()
        loss = F.cross_entropy(logits.double(), labels)
        rows.append({"sigma": sigma, "accuracy": float(accuracy), "log loss": float(loss)})
    return rows


def table(rows: Sequence[dict[str, float]], n: int) -> str:
    lines = [f"{n} test images", "   sigma  accuracy  log loss"]
    lines += [
        f"{row['sigma']:8.3f}  {100 * row['accuracy']:7.2f}%  {row['log loss']:8.3f}"
        for row in rows
    ]
    return "\n".join(lines)
