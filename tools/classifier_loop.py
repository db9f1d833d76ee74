"""How both classifiers of tools/train_classifier.py are trained: Muon and Adam, a triangle of
learning rates, images in a new order each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from muon import Muon

SHIFT = 2  # pixels, at most, in each direction


def flip_and_shift(images: Tensor) -> Tensor:
    """Flipped left to right half the time, and shifted, mirrored at the border, each by itself."""
    n, _, size, _ = images.shape
    images = torch.where(torch.rand(n, 1, 1, 1) < 0.5, images.flip(3), images)
    padded = F.pad(images, [SHIFT] * 4, mode="reflect")
    rows, columns = (torch.randint(0, 2 * SHIFT + 1, (n, 1)) + torch.arange(size) for _ in range(2))
    i = torch.arange(n)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[i, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def make_optimizers(
    network: nn.Module, blocks: nn.Module, lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the kernels of `blocks`, Adam for what else is trained."""
    kernels = [p for p in blocks.parameters() if p.ndim == 4]
    chosen = set(kernels)
    rest = [p for p in network.parameters() if p.requires_grad and p not in chosen]
    return [Muon(kernels, lr), torch.optim.Adam(rest, lr, betas=(0.9, 0.99))]


def minimize(
    loss: Callable[[Tensor], Tensor],
    optimizers: Iterable[torch.optim.Optimizer],
    images: int,
    epochs: int,
    batch: int,
    lr: float,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Descend `loss(index)`, the mean loss of the images with these numbers. The rate rises over a
    tenth of the steps and then falls to zero, linearly. `after` is called after each step."""
    steps = epochs * (images // batch)
    bar, step = tqdm(total=steps, unit="step"), 0
    for _ in range(epochs):
        for index in torch.randperm(images)[: images // batch * batch].split(batch):
            value = loss(index)
            value.backward()
            now = lr * min(1.0, (step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = now
                optimizer.step()
                optimizer.zero_grad()
            after()
            step += 1
            bar.update()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{value.item():.3f}")
