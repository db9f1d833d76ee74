"""Guidance by any loss on the denoised data (Bansal et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from kdiff.functions import called, named
from kdiff.guidance.gradients import NotDifferentiable, differentiable, gradient
from kdiff.guidance.registry import guidance, unguided
from kdiff.messages import Unusable
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


def load_loss(function: Any) -> Callable[[Tensor], Tensor]:
    """The function that `module:name` names, or a function as it is. ValueError for others."""
    if function is None or (isinstance(function, str) and ":" not in function):
        raise ValueError(
            "the guidance loss needs function=module:name, a function from the denoised [N, ..] to "
            "a loss of each sample [N]"
        )
    if isinstance(function, str):
        return named("loss function", function)
    if not callable(function):
        raise ValueError(f"a loss is a function, not {function!r:.80}")
    return function


def asks(inner: frozenset[str], sigma: float, *, scale: float, **options: Any) -> frozenset[str]:
    """An answer that is differentiated cannot be one that was computed without."""
    return inner if scale == 0 else frozenset(f"differentiated: {asked}" for asked in inner)


@guidance(
    "loss",
    paper="Bansal et al. 2023 (Universal Guidance for Diffusion Models), eq. 6, on D",
    asks=asks,
    loads={"function": load_loss},
)
def loss(
    model: Model,
    *,
    scale: Annotated[float, Option("w: 0 is no guidance", -1e6, 1e6)] = 1.0,
    function: Annotated[
        object,
        Option("module:name or a function, from the denoised [N, ..] to a loss of each sample [N]"),
    ] = None,
) -> Denoise:
    """D - w sigma^2 grad_x loss(D(x; sigma)), with w the `scale`; the gradient goes through the
    network, which is evaluated once.

    With loss(x0) = -log p(y | x0) and w = 1 this is classifier guidance in which p(y | x; sigma) is
    taken to be p(y | x0 = D): exact where sigma is small, or x0 is certain. The paper has
    eps' = eps + s(t) grad_x' loss in the variance-preserving frame, with s(t) to be chosen; for
    s = w sqrt(1 - abar), as in classifier guidance, it is this formula.

    ValueError if the network cannot be differentiated (ONNX, programs that detach), or if the
    function fails, or does not answer with one loss for each sample.
    """

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if scale == 0:
            return model(x, sigma, **cond)

        def losses(x: Tensor) -> tuple[Tensor, Tensor]:
            d = model(x, sigma, **cond)
            return _losses(function, d), d

        try:
            with differentiable(getattr(unguided(model), "network", None)):
                slope, d = gradient(losses, x)
        except NotDifferentiable:
            raise Unusable(
                f"{model.name} cannot be guided by a loss: its network gives no gradient, as ONNX "
                "files and some programs do not"
            ) from None
        return (d if slope.requires_grad else d.detach()) - scale * sigma**2 * slope

    return denoise


def _losses(function: Any, d: Tensor) -> Tensor:
    import torch

    n, losses = len(d), called("the loss function", function, d)
    if not isinstance(losses, torch.Tensor) or losses.shape != (n,):
        what = list(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise Unusable(f"the loss function must answer with one loss a sample, [{n}], not {what}")
    if not losses.requires_grad:
        raise Unusable("the loss function's answer cannot be differentiated by the denoised")
    return losses
