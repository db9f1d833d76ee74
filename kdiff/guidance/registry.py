"""What a guidance declares of itself, and the model that it makes of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdiff.model import Denoise, Model, Wrapper, as_model
from kdiff.modifications import Modification, all_chosen, chosen
from kdiff.names import Registry, made_of_functions
from kdiff.options import Option, options_of

if TYPE_CHECKING:
    from torch import Tensor


def _once(sigma: float, **options: Any) -> int:
    return 1


def _never(**options: Any) -> bool:
    return False


@dataclass(frozen=True)
class Guidance:
    """A guidance and what it declares. `evaluations(sigma, **options)`: how often a call at this
    noise level calls the model, counted in samples: one call with a batch twice as large is two.
    `needs_class`: it has no meaning for a sample without a class. `needs_null_class(**options)`:
    whether it asks the model about samples without their class."""

    name: str
    function: Callable[..., Denoise]
    paper: str
    evaluations: Callable[..., int] = _once
    needs_class: bool = False
    needs_null_class: Callable[..., bool] = _never
    aliases: Sequence[str] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)


GUIDANCE: Registry[Guidance] = Registry("guidance", "kdiff.guidance", made_of_functions(Guidance))


def guidance(
    name: str, *, paper: str, **declared: Any
) -> Callable[[Callable[..., Denoise]], Callable[..., Denoise]]:
    """Register the function below under `name`; its keyword-only arguments become its options. It
    is called with the model once, and may refuse it with a ValueError."""

    def register(function: Callable[..., Denoise]) -> Callable[..., Denoise]:
        GUIDANCE[name] = Guidance(name, function, paper, options=options_of(function), **declared)
        return function

    return register


class Guided(Wrapper):
    """`model` with the guidance that `modification` names."""

    def __init__(self, model: Model, modification: Modification):
        super().__init__(model)
        self.modification = modification
        self.guidance = GUIDANCE.find(modification.name).thing
        self._denoise = self.guidance.function(model, **modification.options)

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        return self._denoise(x, sigma, **cond)

    def evaluations(self, sigma: float, /) -> int:
        times = self.guidance.evaluations(sigma, **self.modification.options)
        return times * self.model.evaluations(sigma)

    def record(self) -> dict[str, Any]:
        inner = self.model.record()
        outer = [*inner.get("guidance", []), self.modification.record()]
        return {**inner, "guidance": outer}

    def replace(self, *args: Any, **changes: Any) -> Guided:
        return Guided(self.model.replace(*args, **changes), self.modification)

    def __reduce__(self) -> tuple[Any, ...]:
        return Guided, (self.model, self.modification)


def guide(model: Any, what: str | Modification, /, **options: Any) -> Guided:
    """`model`, guided: `guide(model, "cfg", scale=2)` or `guide(model, "cfg:scale=2")`. It is a
    model: it can be sampled, measured, and guided once more.

    UnknownName or ValueError says what is wrong, also if the model cannot be guided so.
    """
    said = chosen(GUIDANCE, what)
    if options:
        said = chosen(GUIDANCE, Modification(said.name, {**said.options, **options}))
    return Guided(as_model(model), said)


def guided(model: Any, guides: str | Modification | Iterable[str | Modification]) -> Any:
    """`model` with all these, the first one innermost; the model itself if there are none."""
    for one in all_chosen(GUIDANCE, guides):
        model = guide(model, one)
    return model


def check_null_class(model: Any, guides: Iterable[Modification]) -> None:
    """Where classes are numbers. ValueError if one of the guides needs the null class, and the
    model says that it has none."""
    for one in guides:
        needs = GUIDANCE.find(one.name).thing.needs_null_class
        if not getattr(model, "unconditional", True) and needs(**one.options):
            raise ValueError(f"{model.name} has no null class: leave out the guidance {one.name}")
