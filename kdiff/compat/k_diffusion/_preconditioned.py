"""What the denoisers of `layers` and the wrappers of `external` share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kdiff.compat.k_diffusion.utils import append_dims


class Preconditioned(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; t(sigma)), at a sigma `[N]` that may differ over the
    batch. A subclass says what `get_scalings` (c_skip, c_out, c_in; without c_skip it is 1),
    `sigma_to_t` and the network's `output` are."""

    def __init__(self, inner_model: Any, sigma_data: float = 1.0):
        super().__init__()
        self.inner_model = inner_model
        self.sigma_data = sigma_data

    def get_scalings(self, sigma: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        raise NotImplementedError

    def output(self, x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
        return self.inner_model(x, t, **kwargs)

    def forward(self, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        """The denoised of `input` `[N, ..]` at noise level `sigma` `[N]`."""
        c_skip, c_out, c_in = self._coefficients(sigma, input.ndim)
        return c_skip * input + c_out * self.output(c_in * input, self.sigma_to_t(sigma), **kwargs)

    def loss(self, input: Tensor, noise: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        """The mean squared error of the network's output for each sample, `[N]`."""
        network_input, target = self._task(input, noise, sigma)
        error = self.output(network_input, self.sigma_to_t(sigma), **kwargs) - target
        return error.square().flatten(1).mean(1)

    def _task(self, input: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given in training, and what it should answer."""
        c_skip, c_out, c_in = self._coefficients(sigma, input.ndim)
        x = input + append_dims(sigma, input.ndim) * noise
        return c_in * x, (input - c_skip * x) / c_out

    def _coefficients(self, sigma: Tensor, ndim: int) -> list[Any]:
        *skip, c_out, c_in = self.get_scalings(sigma)
        return [append_dims(c, ndim) for c in (*(skip or [sigma.new_ones(())]), c_out, c_in)]


def v_scalings(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of a v prediction, for data of standard deviation `sigma_data` (1 for a VP model)."""
    total = (sigma**2 + sigma_data**2) ** 0.5
    return (sigma_data / total) ** 2, -sigma * sigma_data / total, 1 / total
