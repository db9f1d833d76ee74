"""The Muon optimizer against its algorithm."""

import pytest
import torch

import muon


def test_orthogonalize_leaves_the_singular_vectors_and_evens_out_the_values():
    torch.manual_seed(0)
    for shape in [(20, 50), (50, 20)]:
        matrix = torch.randn(shape)
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        seen = u.T @ muon.orthogonalize(matrix) @ vh.T
        assert (seen.diag() > 0.6).all() and (seen.diag() < 1.3).all()
        assert (seen - seen.diag().diag()).abs().max() < 0.05


def test_muon_steps_are_as_large_as_adams():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(32, 16, 3, 3))
    optimizer = muon.Muon([weight], lr=0.1)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    # Adam's root mean square is about 0.2 of its rate; singular values are 0.85 on average.
    size = float(weight.detach().square().mean().sqrt())
    assert size == pytest.approx(0.1 * 0.2 * 0.85, rel=0.05)


def test_muon_is_its_algorithm():
    """Momentum, look ahead, orthogonalize, step: weight by weight, although shapes are mixed."""
    torch.manual_seed(0)
    shapes = [(8, 4, 3, 3), (6, 8), (8, 4, 3, 3)]
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    expected = [weight.detach().clone() for weight in weights]
    momenta = [torch.zeros_like(weight) for weight in expected]
    optimizer = muon.Muon(weights, lr=0.1, momentum=0.9)
    for _ in range(3):
        for i, weight in enumerate(weights):
            weight.grad = torch.randn_like(weight)
            momenta[i] = 0.9 * momenta[i] + 0.1 * weight.grad
            ahead = (0.1 * weight.grad + 0.9 * momenta[i]).flatten(1)
            step = muon.orthogonalize(ahead) * 0.2 * max(ahead.shape) ** 0.5
            expected[i] = expected[i] - 0.1 * step.view_as(weight)
        optimizer.step()
    for weight, right in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), right, rtol=0, atol=2e-3)
