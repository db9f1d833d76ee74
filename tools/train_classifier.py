"""Train `cifar10-classifier`, the small feature network: an hour on a busy CPU core. Or, with
--noisy, `cifar10-noisy`, the classifier of noisy images that classifier guidance takes.

    python tools/train_classifier.py --data ~/data/cifar10 --out cifar10-classifier.safetensors
    python tools/train_classifier.py --noisy --data ~/data/cifar10 --out cifar10-noisy.safetensors

Of the feature network:

The last 2,000 of the 50,000 training images are held out to calibrate the logits: one temperature.
The test images are looked at when a run has ended. By them, the packaged run was chosen among two.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

import noisy_classifier
from classifier_loop import flip_and_shift, make_optimizers, minimize
from kdiff.classifiers import native
from kdiff.cli.outputs import check_free, writing
from kdiff.cli.paths import UserPath
from kdiff.eval.features.cifar10_classifier import Classifier, to_input
from kdiff.files import whole_file
from recipes import CIFAR10
from training_data import load_cifar10

HELD_OUT = 2000
CUTOUT = 8  # pixels: each image loses a square of eight
SMOOTHING = 0.1


def whitening(images: Tensor) -> Tensor:
    """Kernels `[24, 3, 2, 2]` that make the 2 x 2 patches of images white: eigenvectors of their
    second moments over the roots of the eigenvalues, and the same with the other sign."""
    patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernels = (vectors / (values + 1e-3).sqrt()).T.reshape(-1, 3, 2, 2).float()
    return torch.cat([kernels, -kernels])


def make_network(images: Tensor) -> Classifier:
    """Untrained, with batch normalisation, and with what whitens `images` as its first layer."""
    network = Classifier(lambda width: nn.BatchNorm2d(width, momentum=0.4, affine=True))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # a fixed scale, above zero, commutes with max
            module.weight.requires_grad_(False)
    network.whiten.weight.data.copy_(whitening(images))
    network.whiten.weight.requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def augment(images: Tensor) -> Tensor:
    """Flipped, shifted and with a grey square, each image by itself."""
    n, _, size, _ = images.shape
    changed = flip_and_shift(images)
    top, left = (torch.randint(1 - CUTOUT, size, (n, 1)) for _ in range(2))
    pixel = torch.arange(size)
    hole_rows = (pixel >= top) & (pixel < top + CUTOUT)
    hole_columns = (pixel >= left) & (pixel < left + CUTOUT)
    hole = hole_rows[:, :, None] & hole_columns[:, None, :]
    return changed.masked_fill(hole[:, None], 0.0)


@torch.no_grad()
def keep_norms(kernels: list[Tensor], norms: list[float]) -> None:
    """Behind batch normalisation a kernel's norm means nothing but its rate of learning: were it
    to grow, that would fall."""
    for kernel, norm in zip(kernels, norms, strict=True):
        kernel.mul_(norm / kernel.norm())


def fold(network: Classifier) -> Classifier:
    """The same function without batch normalisation."""
    network = network.eval()
    folded = Classifier()
    for block, target in zip(network.blocks, folded.blocks, strict=True):
        for name in ("0", "1"):
            fused = fuse_conv_bn_eval(getattr(block, f"conv{name}"), getattr(block, f"norm{name}"))
            getattr(target, f"conv{name}").load_state_dict(fused.state_dict())
    folded.whiten.load_state_dict(network.whiten.state_dict())
    folded.output.load_state_dict(network.output.state_dict())
    return folded.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(part)[1] for part in images.split(500)])


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that makes the likelihood of `labels` under softmax(logits / T) greatest (Guo et al.
    2017)."""
    grid = torch.linspace(-1.5, 1.5, 3001).exp()
    losses = torch.stack([F.cross_entropy(logits / t, labels) for t in grid])
    return float(grid[losses.argmin()])


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3)."""
    confidence, guess = logits.softmax(1).max(1)
    right = (guess == labels).float()
    index = (confidence * bins).long().clamp(max=bins - 1)
    gaps = [(right - confidence)[index == b].sum().abs() for b in range(bins)]
    return float(torch.stack(gaps).sum() / len(labels))


def tensors(data: str, train: bool) -> tuple[Tensor, Tensor]:
    """Images `[N, 3, 32, 32]` in [-1, 1], and labels `[N]`."""
    images, labels = load_cifar10(data, train)
    return to_input(torch.from_numpy(images)), torch.from_numpy(labels)


def train(images: Tensor, labels: Tensor, epochs: int, batch: int, lr: float) -> Classifier:
    network = make_network(images[:5000])
    optimizers = make_optimizers(network, network.blocks, lr)
    kernels = optimizers[0].param_groups[0]["params"]
    norms = [kernel.norm().item() for kernel in kernels]

    def loss(index: Tensor) -> Tensor:
        x = augment(images[index]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            _, logits = network(x)
        return F.cross_entropy(logits.float(), labels[index], label_smoothing=SMOOTHING)

    def after() -> None:
        keep_norms(kernels, norms)

    minimize(loss, optimizers, len(images), epochs, batch, lr, after)
    return network


def make_clean(data: str, out: Path, epochs: int, batch: int, lr: float) -> dict[str, object]:
    """Train the feature network, calibrate and write it: what is known of it."""
    images, labels = tensors(data, train=True)
    if len(images) < HELD_OUT + batch:
        raise click.UsageError(f"{data} has {len(images)} images, fewer than held out and a batch")
    began = time.monotonic()
    network = fold(train(images[:-HELD_OUT], labels[:-HELD_OUT], epochs, batch, lr))
    t = temperature(logits_of(network, images[-HELD_OUT:]), labels[-HELD_OUT:])
    for parameter in network.output.parameters():
        parameter.div_(t)
    network = network.half().float()  # as it will be stored
    test_images, test_labels = tensors(data, train=False)
    logits = logits_of(network, test_images)
    found = {
        "epochs": epochs,
        "seconds": round(time.monotonic() - began),
        "temperature": round(t, 3),
        "test accuracy": float((logits.argmax(1) == test_labels).float().mean()),
        "test calibration error": calibration_error(logits, test_labels),
        "test log loss": float(F.cross_entropy(logits, test_labels)),
    }
    weights = {k: v.half().contiguous() for k, v in network.state_dict().items()}
    with writing(out), whole_file(out) as temporary:
        save_file(weights, temporary, {"trained": json.dumps(found)})
    return found


def make_noisy(data: str, out: Path, epochs: int, batch: int, lr: float) -> dict[str, object]:
    """Train the classifier of noisy images and write it: what is known of it."""
    images, labels = tensors(data, train=True)
    if len(images) < batch:
        raise click.UsageError(f"{data} has {len(images)} images, fewer than a batch")
    began, cpu = time.monotonic(), time.process_time()
    network = noisy_classifier.train(images, labels, len(CIFAR10), epochs, batch, lr)
    took = {"seconds": time.monotonic() - began, "cpu seconds": time.process_time() - cpu}
    with writing(out):
        native.save(out, network, CIFAR10)
    stored = native.load(out)
    test_images, test_labels = tensors(data, train=False)
    rows = noisy_classifier.by_sigma(stored, test_images, test_labels)
    click.echo(noisy_classifier.table(rows, len(test_images)))
    return {"epochs": epochs, **{key: round(value) for key, value in took.items()}}


@click.command(context_settings={"show_default": True})
@click.option("--data", required=True, help="torchvision's CIFAR-10 folder, or an .npz.")
@click.option("--out", required=True, type=UserPath(), help="A .safetensors file.")
@click.option("--noisy", is_flag=True, help="The classifier of noisy images, for guidance.")
@click.option("--epochs", default=None, type=int, help="[default: 24, noisy 12]")
@click.option("--batch", default=250)
@click.option("--lr", default=5e-3, help="Peak learning rate.")
@click.option("--seed", default=0)
def main(
    data: str, out: Path, noisy: bool, epochs: int | None, batch: int, lr: float, seed: int
) -> None:
    """Train a classifier, and say how it does on the test images."""
    check_free(out, overwrite=True)
    torch.manual_seed(seed)
    make, usual = (make_noisy, 12) if noisy else (make_clean, 24)
    found = make(data, out, epochs or usual, batch, lr)
    click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
