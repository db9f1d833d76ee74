"""What evaluation costs, both sides timed in one run.

    python tools/bench_eval.py --images 96 --rounds 3

Images/s of feature extraction with the same weights, in interleaved rounds on the same images:
kdiff, its folded network alone (on images resized before), torch-fidelity, torchmetrics, clean-fid.
The Frechet distance at d = 2048, beside the same through scipy's sqrtm, and the errors of both on a
case whose answer is known. Peak memory (on Linux) of the statistics of 5,000 and of 50,000 images.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import scipy.linalg
import torch
from cleanfid.fid import get_folder_features
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from kdiff.eval.backends import CleanFid, TorchMetrics, torch_fidelity_state
from kdiff.eval.features import CPU_BATCH, FeatureNetwork, Features, feature_network
from kdiff.eval.features.inception_weights import find_weights, load_inception, read_weights
from kdiff.eval.features.resize import resize
from kdiff.eval.metrics.frechet import Gaussian, frechet_distance

DIM = 2048
PEERS_BATCH = 32  # clean-fid's and torch-fidelity's default


@click.command(context_settings={"show_default": True})
@click.option("--images", "n", default=96, help="Images in each round.")
@click.option("--rounds", default=3)
@click.option("--size", default=32, help="Their height and width.")
@click.option("--memory", type=int, help="Only: peak memory, in MB, at so many images.")
def main(n: int, rounds: int, size: int, memory: int | None) -> None:
    """Time evaluation beside its peers and print the ratios."""
    if memory:
        click.echo(peak_memory(memory))
        return
    images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    report_throughput(images, rounds)
    report_frechet(rounds)
    report_memory()


def report_throughput(images: np.ndarray, rounds: int) -> None:
    sides = {
        "kdiff": feature_network(),
        "folded network alone": bare(images),
        "torch-fidelity": torch_fidelity(),
        "torchmetrics": TorchMetrics("legacy_tensorflow", find_weights()).update,
        "clean-fid (clean)": clean_fid(),
    }
    for side in sides.values():
        side(images[:PEERS_BATCH])
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(timed(lambda side=side: side(images)))
    for name in sides:
        ratios = [b / a for a, b in zip(seconds["kdiff"], seconds[name], strict=True)]
        rate = len(images) / statistics.median(seconds[name])
        ratio = statistics.median(ratios)
        click.echo(f"{name:22} {rate:7.1f} images/s; kdiff {ratio:.2f} times it")


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def bare(images: np.ndarray) -> Callable[[np.ndarray], None]:
    """The folded network on inputs that are ready, as many as images."""
    network, _ = load_inception()
    ready = resize(torch.from_numpy(images[:CPU_BATCH]), "legacy_tensorflow")

    def run(batch: np.ndarray) -> None:
        with torch.inference_mode():
            for _ in range(0, len(batch), CPU_BATCH):
                network(ready)

    return run


def torch_fidelity() -> Callable[[np.ndarray], None]:
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(torch_fidelity_state(*read_weights(find_weights())), file.name)
        network = FeatureExtractorInceptionV3(
            "theirs", ["2048"], feature_extractor_weights_path=file.name
        )

    def run(images: np.ndarray) -> None:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        with torch.inference_mode():
            for start in range(0, len(x), PEERS_BATCH):
                network(x[start : start + PEERS_BATCH])

    return run


def clean_fid() -> Callable[[np.ndarray], None]:
    """As it is used: on PNG files, which it reads and resizes one by one."""
    network = CleanFid("clean", find_weights()).network

    def run(images: np.ndarray) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for i, image in enumerate(images):
                Image.fromarray(image).save(f"{folder}/{i}.png")
            get_folder_features(
                folder,
                lambda x: network((x - 128) / 128)[0].flatten(1),
                num_workers=0,
                batch_size=PEERS_BATCH,
                device=torch.device("cpu"),
                verbose=False,
            )

    return run


class Known:
    """Moments that share a random basis with the reference: the distance is then a sum over the
    eigenvalues."""

    rows = None
    n = 50_000

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        basis, _ = np.linalg.qr(rng.standard_normal((DIM, DIM)))
        a, b = np.geomspace(1e-6, 1, DIM), np.geomspace(1e-5, 2, DIM)
        self.mean = rng.standard_normal(DIM) / 100
        self.cov = (basis * a) @ basis.T
        self.reference = Gaussian(np.zeros(DIM), (basis * b) @ basis.T)
        self.distance = self.mean @ self.mean + ((a**0.5 - b**0.5) ** 2).sum()


def report_frechet(rounds: int) -> None:
    known = Known()
    frechet_distance(known.reference, known)  # factors the reference, once for all that follow
    sides = {
        "kdiff": lambda: frechet_distance(known.reference, known),
        "sqrtm": lambda: through_sqrtm(known),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(timed(side))
    for name, side in sides.items():
        error = abs(side() / known.distance - 1)
        median = statistics.median(seconds[name])
        click.echo(f"Frechet distance, {name:6} {median:6.2f} s, relative error {error:.1e}")
    ratios = [b / a for a, b in zip(seconds["kdiff"], seconds["sqrtm"], strict=True)]
    click.echo(f"Frechet distance: kdiff {statistics.median(ratios):.1f} times as fast")


def through_sqrtm(known: Known) -> float:
    """As pytorch-fid and clean-fid compute it."""
    product = scipy.linalg.sqrtm(known.cov @ known.reference.cov)
    traces = np.trace(known.cov) + np.trace(known.reference.cov)
    return known.mean @ known.mean + traces - 2 * np.trace(product.real)


def report_memory() -> None:
    few, many = (
        int(subprocess.check_output([sys.executable, __file__, "--memory", str(n)]))
        for n in (5_000, 50_000)
    )
    click.echo(f"peak memory: {few} MB at 5,000 images, {many} MB at 50,000: {many - few} MB more")


def peak_memory(n: int) -> int:
    """FID of n images whose features are drawn, so that it takes seconds: the network's own memory
    does not depend on n."""
    from kdiff.eval.evaluation import Collector
    from kdiff.eval.references import Reference

    rng = np.random.default_rng(0)
    network = FeatureNetwork("drawn", None, "", lambda images: drawn(rng, len(images)))
    gaussian = Gaussian(np.zeros(DIM), np.eye(DIM))
    reference = Reference(name="drawn", features="drawn", gaussian=gaussian)
    collector = Collector(["fid"], n, network, reference)
    images = np.zeros((100, 1, 1, 3), dtype=np.uint8)
    for start in range(0, n, 100):
        collector.update(images, range(start, start + 100))
    collector.figures()
    # Not ru_maxrss, which a process takes over from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def drawn(rng: np.random.Generator, n: int) -> Features:
    return Features(rng.standard_normal((n, DIM), dtype=np.float32))


if __name__ == "__main__":
    main()
