"""Gradients by x, whatever mode of torch a run is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def gradient(f: Callable[[Tensor], tuple[Tensor, T]], x: Tensor) -> tuple[Tensor, T]:
    """`f(x)` answers with a value of each sample, `[N]`, and with anything else: the gradients of
    the values by x `[N, ..]`, and what else it was. If x is being differentiated, the gradient can
    be too.

    ValueError if the values do not depend on x in a way that torch can follow.
    """
    import torch

    follow = torch.is_grad_enabled() and x.requires_grad
    with torch.inference_mode(False), torch.enable_grad():
        at = x if follow else x.detach().clone().requires_grad_()
        values, other = f(at)
        found = None
        if values.requires_grad:
            (found,) = torch.autograd.grad(values.sum(), at, create_graph=follow, allow_unused=True)
    if found is None:
        raise ValueError("its answer cannot be differentiated")
    return found, other


class NotDifferentiable(Exception):
    """A network's answer has no gradient by what it was given."""


@contextmanager
def differentiable(network: Any) -> Iterator[None]:
    """NotDifferentiable if `network`, a module, is called within it and answers without a gradient:
    that of the preconditioner around it would still exist, and be wrong."""
    from torch import Tensor, nn

    def check(module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
        if given[0].requires_grad and isinstance(answer, Tensor) and not answer.requires_grad:
            raise NotDifferentiable

    if not isinstance(network, nn.Module):
        yield
        return
    hook = network.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()
