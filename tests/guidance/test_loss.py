"""Guidance by a loss, against exact posteriors of Gaussians."""

import pytest
import torch

import kdiff
from kdiff.guidance import guide

X = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MEAN, STD, SEEN, ERROR = 0.4, 0.6, -0.3, 0.5


def gaussian(x, sigma):
    """D of N(MEAN, STD^2)."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def unlikeliness(x0):
    """-log p(y | x0) of an observation y = SEEN + N(0, ERROR^2) of each pixel."""
    return (x0 - SEEN).square().flatten(1).sum(1) / (2 * ERROR**2)


@pytest.mark.parametrize("sigma", [0.002, 0.01, 0.5, 4.0])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_is_the_chain_rule_through_the_network(sigma, scale):
    slope = STD**2 / (STD**2 + sigma**2)  # of D
    d = gaussian(X, sigma)
    expected = d - scale * sigma**2 * slope * (d - SEEN) / ERROR**2
    found = guide(gaussian, "loss", function=unlikeliness, scale=scale)(X, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not found.requires_grad


def test_for_small_sigma_it_is_the_posterior_of_the_observation():
    """p(x0 | x, y) is a Gaussian whose precision is the sum of three; the formula takes x0 = D, and
    is off by the square of its variance."""
    for sigma in (0.02, 0.01):
        precision = 1 / STD**2 + 1 / sigma**2 + 1 / ERROR**2
        exact = (MEAN / STD**2 + X / sigma**2 + SEEN / ERROR**2) / precision
        found = guide(gaussian, "loss", function=unlikeliness)(X, sigma)
        shift = (exact - gaussian(X, sigma)).abs().max()
        assert (found - exact).abs().max() < 2 * sigma**2 / ERROR**2 * shift


def test_it_takes_one_evaluation_and_composes():
    calls = []

    def model(x, sigma):
        calls.append(len(x))
        return gaussian(x, sigma)

    guided = guide(guide(model, "loss", function=unlikeliness), "loss", function=unlikeliness)
    found = guided(X, 0.7)
    assert calls == [3] and guided.evaluations(0.7) == 1
    once = guide(gaussian, "loss", function=unlikeliness)
    x = X.clone().requires_grad_()
    d = once(x, 0.7)
    (slope,) = torch.autograd.grad(unlikeliness(d).sum(), x)
    torch.testing.assert_close(found, d.detach() - 0.49 * slope)


def test_each_sample_has_its_own_gradient_in_any_batch_and_a_run_ends_near_what_was_seen():
    arguments = {"steps": 20, "sigma_min": 0.02, "sigma_max": 5.0, "shape": (1, 2, 2)}
    arguments |= {"guide": "loss:function=kdiff_test_losses:strict", "seeds": [3, 4, 5]}
    together = kdiff.sample(gaussian, "euler", **arguments)
    alone = kdiff.sample(gaussian, "euler", batch=1, **arguments)
    assert torch.equal(together, alone)
    free = kdiff.sample(gaussian, "euler", **{**arguments, "guide": ()})
    assert (together - SEEN).abs().mean() < 0.5 * (free - SEEN).abs().mean()


@pytest.fixture(autouse=True)
def losses(tmp_path, monkeypatch):
    text = (
        "def strict(x0):\n    return (x0 + 0.3).square().flatten(1).sum(1) / 0.02\n\nnumber = 3\n"
    )
    (tmp_path / "kdiff_test_losses.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


class Detached(torch.nn.Module):
    def forward(self, x, t):
        return (x * 2).detach()


def test_a_network_without_gradients_is_refused():
    model = kdiff.wrap(Detached(), "eps", shape=(2, 2, 2), name="frozen")
    guided = guide(model, "loss", function=unlikeliness)
    with pytest.raises(ValueError, match="frozen cannot be guided by a loss: its network gives no"):
        guided(X.float(), 0.5)
    assert not model.network._forward_hooks


@pytest.mark.parametrize(
    ("function", "match"),
    [
        ("nothing", "needs function=module:name"),
        ("kdiff_test_losses:none", "there is no loss function 'kdiff_test_losses:none'"),
        ("kdiff_test_losses:number", "is int, not a function"),
        ("no_such_module:f", "there is no loss function"),
        (3, "a loss is a function, not 3"),
        (lambda d: d.sum(), r"one loss a sample, \[3\], not \[\]"),
        (lambda d: 1.0, r"one loss a sample, \[3\], not float"),
        (lambda d: d.detach().flatten(1).sum(1), "cannot be differentiated by the denoised"),
    ],
)
def test_a_loss_that_cannot_guide_is_refused(function, match):
    with pytest.raises(ValueError, match=match) as told:
        guide(gaussian, "loss", function=function)(X, 1.0)
    assert "\n" not in str(told.value)


def test_a_loss_must_be_given():
    with pytest.raises(ValueError, match="the guidance loss needs function=module:name"):
        guide(gaussian, "loss")


def test_scale_0_has_the_bits_of_the_model():
    found = guide(gaussian, "loss", function=unlikeliness, scale=0)(X, 0.5)
    assert torch.equal(found, gaussian(X, 0.5))
