"""Guidance away from a worse model: autoguidance (Karras et al. 2024)."""

from __future__ import annotations

from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kdiff.conditions import LABELS
from kdiff.guidance.asking import Base
from kdiff.guidance.registry import Guided, guidance, unguided
from kdiff.model import Denoise, Model, as_model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

WORSE = "worse model"


def asks(inner: frozenset[str], sigma: float, *, scale: float, model: Any) -> frozenset[str]:
    each = getattr(model, "evaluations", None)  # it may be guided itself
    times = 1 if each is None else each(sigma)
    names = (f"{WORSE} {i}" if i else WORSE for i in count())
    worse = frozenset(islice((name for name in names if name not in inner), times))
    if scale in (0, 1):
        return inner if scale == 1 else worse
    return inner | worse


def load(model: Any) -> Model:
    """A model of a name or file that `kdiff.load` takes; one in Python as it is."""
    if callable(model):
        return as_model(model)
    if not isinstance(model, str | Path) or not str(model):
        raise ValueError("autoguidance needs a worse model: give model=FILE")
    import kdiff.models

    return kdiff.models.load(model)


@guidance(
    "autoguidance",
    paper="Karras et al. 2024 (Guiding a Diffusion Model with a Bad Version of Itself), eq. 3",
    asks=asks,
    loads={"model": load},
    aliases=("bad_version",),
)
def autoguidance(
    inner: Model,
    /,
    *,
    model: Annotated[object, Option("a model, or a name or file that kdiff.load takes")] = "",
    scale: Annotated[
        float, Option("w: 1 is no guidance, 0 is the worse model alone", -100, 100)
    ] = 2.1,
) -> Denoise:
    """g + w (D - g), with g the answer of a worse `model` of the same data under the same
    conditions: a smaller one, or one trained for a shorter time. g gets no class if that model has
    none: so an unconditional model gives EDM2's form of classifier-free guidance. The coefficients
    add up to 1, so the formula is the same for eps, v and velocities.

    Published settings (paper, table 1, ImageNet-512): EDM2-S guided by an EDM2-XS trained for a
    sixteenth of the time, w = 2.1, FID 1.34; EDM2-XXL guided by an EDM2-M trained for 1 / 3.5 of
    the time, w = 2.05, FID 1.25. The default scale is EDM2-S's.

    If both make pictures of prompts, the worse one makes them in the size of the other.
    ValueError for a model of another shape or of other classes.
    """
    worse: Any = model if isinstance(model, Guided) else Base(model)
    if all(getattr(one, "takes_prompts", False) for one in (inner, worse)):
        worse = worse.replace(shape=unguided(worse).resized(*unguided(inner).size).shape)
    _check_alike(inner, worse)

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if scale == 1:
            return inner(x, sigma, **cond)
        told = cond if worse.classes else {k: v for k, v in cond.items() if k != LABELS}
        g = worse(x, sigma, **told)
        return g if scale == 0 else g + scale * (inner(x, sigma, **cond) - g)

    return denoise


def _check_alike(inner: Model, worse: Model) -> None:
    for what in ("shape", "classes"):
        ours, theirs = (tuple(getattr(one, what) or ()) for one in (inner, worse))
        if ours and theirs and ours != theirs:
            said = f"shape {theirs}, not {ours}" if what == "shape" else "other classes"
            raise ValueError(f"{worse.name} cannot guide {inner.name}: it has {said}")
