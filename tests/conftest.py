"""What several test files share: a cheap configuration of torch, and one way to run a sampler."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import kdiff

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    # As --data=FOLDER: pytest takes a word of its own for a folder of tests, and never gets here.
    parser.addoption("--data", help="CIFAR-10: torchvision's folder of it, or an .npz")


def _run(
    denoise: Callable[..., Tensor], sampler: str, sigmas: Sequence[float], x: Tensor, **options
) -> Tensor:
    plan = kdiff.plan(sampler=sampler, sigmas=sigmas, options=options)
    noise = kdiff.Noise(range(len(x)), x.shape[1:], x.dtype)
    *_, last = kdiff.drive(denoise, plan, x, noise)
    return last.x


@pytest.fixture(scope="session")
def run() -> Callable[..., Tensor]:
    """run(denoise, sampler, sigmas, x, **options): the result, with noise of seeds 0, 1, .."""
    return _run
