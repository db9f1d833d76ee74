"""Exact denoisers whose arithmetic is pointwise: the same bits in any batch and in any shape."""

import torch

import kdiff


class Pointwise:
    """D for N(mean_i, 1/4) in each coordinate i, counted through the shape: mean_i = sin(i + 1).
    With `class_labels`, or `prompts` (their lengths), each sample's mean is that much higher."""

    classes = ("none", "one", "two", "three")
    sigma_min, sigma_max = 0.002, 80.0

    def __init__(self, shape=(3,)):
        self.shape = tuple(shape)
        self.calls = []

    def mean(self, like):
        numbers = torch.arange(1, 1 + max(1, like[0].numel()), dtype=torch.float64)
        return numbers.sin().reshape(like.shape[1:]).to(like)

    def __call__(self, x, sigma, class_labels=None, prompts=None, lift=0.0):
        self.calls.append((len(x), sigma))
        mean = self.mean(x).expand_as(x) + lift
        for rows in (class_labels, None if prompts is None else [len(p) for p in prompts]):
            if rows is not None:
                assert len(rows) == len(x)
                each = torch.as_tensor(rows).clamp(min=0).to(x)
                mean = mean + each.reshape(-1, *[1] * (x.ndim - 1))
        v = 0.25 / (0.25 + sigma**2)
        return mean + v * (x - mean)


def two_humps(dtype=torch.float64):
    """D of a mixture of two Gaussians: not linear in x."""
    from kdiff.analytic import GaussianMixture

    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=dtype)
    return GaussianMixture(means, torch.tensor([0.3, 0.5], dtype=dtype))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


GAUSSIAN = kdiff.analytic.gaussian(torch.tensor([0.5, -1.0, 2.0]))
