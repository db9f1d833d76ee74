"""What the model inside all guidance answers: within one call each question is computed once.

Classifier-free guidance asks for c = D(x | class) and u = D(x | no class), rescaling asks for c
again, and so on. So that guidances can stand around each other as models around models, and none
costs what another one has computed, the innermost model remembers its answers for as long as the
call of the outermost one lasts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from kdiff.conditions import (
    VARIANCE,
    WANTED,
    Conditions,
    Shared,
    alike,
    joined,
    no_class,
    nothing,
    own,
    unconditional,
)
from kdiff.model import Wrapper

if TYPE_CHECKING:
    from torch import Tensor

CONDITIONAL, UNCONDITIONAL, NOTHING = "conditional", "unconditional", "nothing"

# What has been computed in this call, by key; with what it was computed from, whose id is in the
# key: as long as it is held, no other object has that id.
_known: ContextVar[dict[Any, tuple[Any, Any]] | None] = ContextVar("known", default=None)


@contextmanager
def one_call() -> Iterator[None]:
    """Within it, and what it calls, each question is computed once."""
    if _known.get() is not None:
        yield
        return
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def once(model: Any, x: Tensor, sigma: float, cond: Conditions, answer: Any) -> Tensor:
    """`answer()`, what a guided model answers, computed once in this call."""
    known = _known.get()
    assert known is not None
    key = id(model), id(x), sigma, frozenset((name, id(value)) for name, value in cond.items())
    if key not in known:
        known[key] = (x, cond), answer()
    return known[key][1]


def with_variance(model: Base, x: Tensor, sigma: float, cond: Conditions, answer: Any) -> Tensor:
    """`answer()`, what a guided model answers, and with it the learned variance of the model inside
    under the run's own conditions; or the first that is computed, if the guidance asks for others
    only. ValueError if it asks `model` nothing."""
    import torch

    known, kept = _known.get(), dict[Any, Any]()
    assert known is not None
    known[VARIANCE, id(model)] = None, kept
    d = answer()
    if not kept:
        raise ValueError(f"{model.name} is not asked here, so it gives no learned variance")
    first = next(iter(kept.values()))
    return torch.stack([d, kept.get(model._key(x, sigma, cond), first)], dim=1)


class Base(Wrapper):
    """The model inside all guidance. It gets a copy of `x`, since networks may write into it, and
    none of the conditions that are meant for guidance."""

    _fits = True  # all conditions in one call

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        return self.answers(x, sigma, cond)[0]

    def answers(self, x: Tensor, sigma: float, *conds: Conditions) -> list[Tensor]:
        """D(x; sigma) under each of these conditions. What has not been computed yet in this call
        is computed with one call of the network, if memory allows that."""
        known = _known.get()
        known = {} if known is None else known
        asked = {self._key(x, sigma, cond): cond for cond in conds}
        new = {key: own(cond) for key, cond in asked.items() if key not in known}
        _, variances = known.get((VARIANCE, id(self)), (None, None))
        if new:
            more = {} if variances is None else {VARIANCE: WANTED}
            told = [{**cond, **more} for cond in new.values()]
            for key, d in zip(new, self._together(x, sigma, told), strict=True):
                if variances is not None:
                    d, variances[key] = d.unbind(1)
                known[key] = ((x, asked[key]), d)
        return [known[self._key(x, sigma, cond)][1] for cond in conds]

    def anew(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        """D(x; sigma), not remembered: for a network that is changed meanwhile."""
        return self._together(x, sigma, [own(cond)])[0]

    def _together(self, x: Tensor, sigma: float, conds: list[dict[str, Any]]) -> list[Tensor]:
        import torch

        if self._fits and len(conds) > 1 and alike(*conds):
            try:
                joint = self.model(torch.cat([x] * len(conds)), sigma, **joined(*conds))
                return [part.clone() for part in joint.chunk(len(conds))]
            except torch.OutOfMemoryError:
                self._fits = False
        return [self.model(x.clone(), sigma, **cond).clone() for cond in conds]

    def _key(self, x: Tensor, sigma: float, cond: Conditions) -> Any:
        each = ((k, id(v.value if isinstance(v, Shared) else v)) for k, v in own(cond).items())
        return id(self), id(x), sigma, frozenset(each)

    def asks(self, sigma: float) -> frozenset[str]:
        """The names of the questions that a call at this noise level puts to the network."""
        return frozenset({CONDITIONAL})


def answers(model: Any, x: Tensor, sigma: float, *conds: Conditions) -> list[Tensor]:
    """D(x; sigma) of `model` under each of these conditions."""
    if isinstance(model, Base):
        return model.answers(x, sigma, *conds)
    return [model(x, sigma, **cond) for cond in conds]


def pair(model: Any, x: Tensor, sigma: float, cond: Mapping[str, Any]) -> list[Tensor]:
    """c and u: D(x | class or prompt), and D(x | the negative one, or none)."""
    return answers(model, x, sigma, cond, without(cond))


def without(cond: Conditions) -> dict[str, Any]:
    """The conditions of u: `negative_X` in the place of X, or else `null_X`, or no class."""
    return unconditional(cond, _no_class)


def empty(cond: Conditions) -> dict[str, Any]:
    """The conditions without class and prompt, whatever the negative ones are."""
    return nothing(cond, _no_class)


def _no_class(labels: Tensor) -> Any:
    """The same object in all of this call, so that u of u is known to be u."""
    known = _known.get()
    if known is None:
        return no_class(labels)
    key = no_class, labels.shape, labels.dtype, labels.device
    if key not in known:
        known[key] = None, no_class(labels)
    return known[key][1]


def also_without_class(inner: frozenset[str], sigma: float, **options: Any) -> frozenset[str]:
    """The questions of a guidance that asks the model inside for c and for u."""
    return inner | only_without_class(inner)


def only_without_class(inner: frozenset[str]) -> frozenset[str]:
    """The questions of a guidance that asks the model inside for u alone; u of u is u."""
    return frozenset(UNCONDITIONAL if q == CONDITIONAL else _told(UNCONDITIONAL, q) for q in inner)


def only_of_nothing(inner: frozenset[str]) -> frozenset[str]:
    """The questions of a guidance that asks the model inside without class and prompt, beside the
    negative ones."""
    return frozenset(_told(NOTHING, question) for question in inner)


def _told(what: str, question: str) -> str:
    """The question where conditions are replaced. What they are replaced by stays what it is."""
    replaced = question.startswith((UNCONDITIONAL, NOTHING))
    return question if replaced else f"{what}: {question}"
