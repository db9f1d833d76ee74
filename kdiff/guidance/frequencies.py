"""Frequency-decoupled guidance (Sadat et al. 2025): a scale for each level of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from kdiff.counts import finite_number
from kdiff.guidance.asking import also_without_class, pair
from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

KERNEL = tuple(weight / 16 for weight in (1, 4, 6, 4, 1))  # Burt & Adelson 1983


def asks(inner: frozenset[str], sigma: float, *, scales: str) -> frozenset[str]:
    return also_without_class(inner, sigma) if changes(scales=scales) else inner


def changes(*, scales: str) -> bool:
    return any(scale != 1 for scale in numbers(scales))


def numbers(scales: str) -> list[float]:
    """`10+5` -> [10.0, 5.0]. ValueError for anything else."""
    try:
        return [finite_number("a scale", float(one)) for one in scales.split("+")]
    except ValueError:
        raise ValueError(
            f"scales must be numbers from fine to coarse, such as 10+5, not {scales!r:.80}"
        ) from None


@guidance(
    "fdg",
    paper="Sadat et al. 2025 (Guidance in the Frequency Domain), algorithm 2",
    asks=asks,
    needs_class=True,
    needs_null_class=changes,
    aliases=("frequency_decoupled",),
)
def fdg(
    model: Model,
    *,
    scales: Annotated[str, Option("w of each level, from fine to coarse, such as 10+5")] = "10+5",
) -> Denoise:
    """u + sum_l w_l P_l (c - u), where P_l takes level l of a Laplacian pyramid. The first scale is
    for the finest details, and the last for all that is left. Scales of 1 are no guidance, and
    equal ones are `cfg`. The default is the paper's for SDXL (table 8), and diffusers'.

    The levels add up to the picture. So classifier-free guidance on each level of the pyramids of c
    and u, as the paper and diffusers have it, is this sum, and the same for eps, v and velocities.
    A level is what its picture loses if it is blurred, halved, doubled again (bilinearly) and
    blurred.

    ValueError for samples that are not pictures [C, H, W], or too small for that many levels.
    """
    levels = numbers(scales)
    if model.shape is not None:
        _check(model.shape, len(levels))

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        _check(x.shape[1:], len(levels))
        if not changes(scales=scales):
            return model(x, sigma, **cond)
        c, u = pair(model, x, sigma, cond)
        return u + scaled(c - u, levels)

    return denoise


def scaled(picture: Tensor, scales: Sequence[float]) -> Tensor:
    """The sum of the levels of its pyramid, each times its scale."""
    first, *others = scales
    if not others:
        return first * picture
    coarse = halved(picture)
    detail = picture - doubled(coarse, picture)
    return first * detail + doubled(scaled(coarse, others), picture)


def halved(picture: Tensor) -> Tensor:
    return _resized(blurred(picture), [size // 2 for size in picture.shape[2:]])


def doubled(picture: Tensor, like: Tensor) -> Tensor:
    return blurred(_resized(picture, list(like.shape[2:])))


def blurred(picture: Tensor) -> Tensor:
    """With the kernel along both sides, mirrored at the edges. It is a sum, not a convolution of
    torch's, which a GPU rounds to TF32."""
    import torch

    picture = torch.nn.functional.pad(picture, (2, 2, 2, 2), mode="reflect")
    for side in (2, 3):
        size = picture.shape[side] - 4
        shifted = [w * picture.narrow(side, i, size) for i, w in enumerate(KERNEL)]
        picture = torch.stack(shifted).sum(0)
    return picture


def _resized(picture: Tensor, size: list[int]) -> Tensor:
    import torch

    return torch.nn.functional.interpolate(picture, size, mode="bilinear", align_corners=False)


def _check(shape: Sequence[int], levels: int) -> None:
    """ValueError unless samples of this shape have that many levels."""
    least = 1 if levels == 1 else 3 * 2 ** (levels - 2)  # mirroring takes three pixels
    if len(shape) != 3 or min(shape[1:]) < least:
        said = f"pictures of at least {least} x {least} pixels for {levels} scales"
        raise ValueError(f"fdg needs {said}, not samples of shape {tuple(shape)}")
