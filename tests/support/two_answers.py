"""What tests of guidance start from: c and u of the exact model with classes."""

import torch

from class_mixture import ClassMixture

LABELS = torch.tensor([0, 2, 1])
SHAPE = (1, 2, 3)


def inputs(sigma):
    """The model, x at noise level sigma, and there c = D(x | class) and u = D(x) in closed form, in
    float64. The classes overlap, so that c and u differ at all noise levels."""
    model = ClassMixture(SHAPE)
    model.means *= 0.3
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(len(LABELS), *SHAPE, generator=generator, dtype=torch.float64)
    x = model.means.mean(0) + (0.09 + sigma**2) ** 0.5 * x
    each = model.of_classes(x, sigma)
    posterior = model.log_posterior(x, sigma).exp()
    c = each[torch.arange(len(LABELS)), LABELS]
    u = torch.einsum("nk,nk...->n...", posterior, each)
    assert (c - u).flatten(1).norm(dim=1).min() > 1e-3 * min(1, sigma)
    return model, x, c, u


def to_space(space, x, sigma, d):
    """The prediction, by the definitions: alpha and sigma of a variance-preserving process, and the
    straight line of a flow."""
    eps = (x - d) / sigma
    alpha, vp_sigma = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    return {
        "denoised": d,
        "noise": eps,
        "v": alpha * eps - vp_sigma * d,
        "velocity": eps - d,
    }[space]


def from_space(space, x, sigma, f):
    """Of a prediction, D: by each process's own formula for x0."""
    alpha, vp_sigma = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    t = sigma / (1 + sigma)
    return {
        "denoised": f,
        "noise": x - sigma * f,
        "v": alpha * (alpha * x) - vp_sigma * f,
        "velocity": (1 - t) * x - t * f,
    }[space]


SPACES = ("denoised", "noise", "v", "velocity")
SIGMAS = (0.2, 0.7, 3.0, 60.0)
