"""What a guidance declares of itself, and the model that it makes of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdiff.conditions import LABELS, NEGATIVE, NULL, STEP, VARIANCE
from kdiff.guidance.asking import Base, once, one_call, with_variance
from kdiff.model import Denoise, Model, Wrapper, as_model
from kdiff.modifications import Modification, all_chosen, chosen
from kdiff.names import Registry, made_of_functions
from kdiff.options import Option, options_of

if TYPE_CHECKING:
    from torch import Tensor

    from kdiff.plans import Plan


def _the_same(inner: frozenset[str], sigma: float, **options: Any) -> frozenset[str]:
    return inner


def _never(**options: Any) -> bool:
    return False


def _suits_all(plan: Plan, **options: Any) -> str | None:
    return None


@dataclass(frozen=True)
class Guidance:
    """A guidance and what it declares.

    `asks(inner, sigma, **options)`: the names of the different questions that a call at this noise
    level puts to networks, given those of the model inside: as many evaluations as there are names.
    `needs_class`: it has no meaning for a sample without a class or prompt.
    `needs_null_class(**options)`: whether it asks the model about samples without their class.
    `needs_negative(**options)`: whether it needs a negative class or prompt, and asks about samples
    with neither beside it.
    `knows_step`: its denoiser gets `step`, a `kdiff.guidance.Step`; so it works in a run only.
    `refuses(plan, **options)`: why it is wrong with the plan's sampler, None if it is right.
    `loads`: options that name a network beside the model, with what loads each; the function gets
    what was loaded.
    """

    name: str
    function: Callable[..., Denoise]
    paper: str
    asks: Callable[..., frozenset[str]] = _the_same
    needs_class: bool = False
    needs_null_class: Callable[..., bool] = _never
    needs_negative: Callable[..., bool] = _never
    knows_step: bool = False
    refuses: Callable[..., str | None] = _suits_all
    loads: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)


GUIDANCE: Registry[Guidance] = Registry("guidance", "kdiff.guidance", made_of_functions(Guidance))


def guidance(
    name: str, *, paper: str, **declared: Any
) -> Callable[[Callable[..., Denoise]], Callable[..., Guided]]:
    """Register the function below under `name`; its keyword-only arguments become its options. It
    is called with the model once, and may refuse it with a ValueError. What stands in its place
    makes a model of a model: `cfg(model, 1.5)` is `guide(model, "cfg", scale=1.5)`."""

    def register(function: Callable[..., Denoise]) -> Callable[..., Guided]:
        options = options_of(function)

        @wraps(function)
        def apply(model: Any, /, *values: Any, **named: Any) -> Guided:
            if len(values) > len(options):
                raise TypeError(f"{name} has {len(options)} options, not {len(values)}")
            return guide(model, name, **dict(zip(options, values, strict=False)), **named)

        GUIDANCE[name] = Guidance(name, function, paper, options=options, **declared)
        return apply

    return register


class Guided(Wrapper):
    """`model` with the guidance that `modification` names."""

    def __init__(self, model: Model, modification: Modification):
        super().__init__(model if isinstance(model, Guided | Base) else Base(model))
        self.modification = modification
        self.guidance = GUIDANCE.find(modification.name).thing
        name, options = self.guidance.name, modification.options
        if self.guidance.needs_class and not (model.classes or _takes_prompts(model)):
            raise ValueError(f"{model.name} has no classes: leave out the guidance {name}")
        self.beside = {
            key: _loaded(load, options[key], model) for key, load in self.guidance.loads.items()
        }
        self._denoise = self.guidance.function(self.model, **{**options, **self.beside})

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if self.guidance.needs_class:
            _check_class(self.guidance.name, x, cond)
        if self.guidance.knows_step and STEP not in cond:
            name = self.guidance.name
            raise ValueError(f"the guidance {name} must know the step: it works in a run only")
        wanted = cond.pop(VARIANCE, None)
        with one_call():

            def answer() -> Tensor:
                return once(self, x, sigma, cond, lambda: self._denoise(x, sigma, **cond))

            return with_variance(unguided(self), x, sigma, cond, answer) if wanted else answer()

    @property
    def classes(self) -> Sequence[str]:
        """The model's, or else those of a network beside it, such as a classifier."""
        others = (getattr(other, "classes", ()) for other in self.beside.values())
        return self.model.classes or next((some for some in others if some), ())

    @property
    def knows_step(self) -> bool:
        """Whether it, or what is inside or beside it, must be told the step."""
        networks = (self.model, *self.beside.values())
        return self.guidance.knows_step or any(getattr(n, "knows_step", False) for n in networks)

    def asks(self, sigma: float) -> frozenset[str]:
        """The names of the questions that a call at this noise level puts to networks."""
        inner = self.model.asks(sigma)
        return self.guidance.asks(inner, sigma, **self.modification.options)

    def evaluations(self, sigma: float, /) -> int:
        return len(self.asks(sigma)) * unguided(self).evaluations(sigma)

    def check_plan(self, plan: Plan) -> None:
        """ValueError if the guidance, or what guides inside or beside it, is wrong with the plan's
        sampler."""
        for network in (self.model, *self.beside.values()):
            suited(network, plan)
        check_suits(self.modification, plan)

    def to(self, device: Any = None, dtype: Any = None) -> Guided:
        for network in (self.model, *self.beside.values()):
            if hasattr(network, "to"):
                network.to(device, dtype)
        return self

    def compile(self) -> Guided:
        for network in (self.model, *self.beside.values()):
            if hasattr(network, "compile"):
                network.compile()
        return self

    def record(self) -> dict[str, Any]:
        inner = self.model.record()
        said = self.modification.record()
        beside = {key: _recorded(other) for key, other in self.beside.items()}
        said["options"] = {**said["options"], **beside}
        return {**inner, "guidance": [*inner.get("guidance", []), said]}

    def replace(self, *args: Any, **changes: Any) -> Guided:
        return Guided(self.model.replace(*args, **changes), self.modification)

    def __reduce__(self) -> tuple[Any, ...]:
        inner = self.model.model if isinstance(self.model, Base) else self.model
        return Guided, (inner, self.modification)


def suited(model: Any, plan: Plan) -> None:
    """ValueError if what guides the model is wrong with the plan's sampler."""
    check = getattr(model, "check_plan", None)
    if check is not None:
        check(plan)


def check_suits(one: Modification, plan: Plan) -> None:
    """ValueError if a guidance is wrong with the plan's sampler."""
    found = GUIDANCE.find(one.name).thing
    why = found.refuses(plan, **one.options)
    if why is not None:
        raise ValueError(f"the guidance {found.name} {why}")


def unguided(model: Any) -> Any:
    """The model inside all guidance; within one call, it computes each answer once."""
    while isinstance(model, Guided):
        model = model.model
    return model


def _takes_prompts(model: Any) -> bool:
    return bool(getattr(model, "takes_prompts", False))


def _check_class(name: str, x: Tensor, cond: Mapping[str, Any]) -> None:
    """ValueError unless there is a class for each sample, or something else to leave out."""
    import torch

    labels = cond.get(LABELS)
    if labels is None:
        if not any(key.startswith((NEGATIVE, NULL)) for key in cond):
            raise ValueError(f"the guidance {name} needs class_labels")
    elif not isinstance(labels, torch.Tensor) or labels.shape[:1] != x.shape[:1]:
        raise ValueError("class_labels must be a tensor with a row for each sample")


def _loaded(load: Callable[[Any], Any], value: Any, model: Any) -> Any:
    """What an option names, moved to where the model is; an object that was given stays there."""
    other = load(value)
    if isinstance(value, str | Path) and hasattr(other, "to"):
        other.to(model.device, model.dtype)
    return other


def _recorded(other: Any) -> Any:
    """What names a network beside the model, or a function."""
    if hasattr(other, "record"):
        return other.record()
    where = getattr(other, "__module__", type(other).__module__)
    return f"{where}:{getattr(other, '__qualname__', type(other).__qualname__)}"


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
    """Where classes are numbers, and no negative ones are given. ValueError if one of the guides
    needs the null class, and the model says that it has none."""
    for one in guides:
        needs = GUIDANCE.find(one.name).thing.needs_null_class
        if not getattr(model, "unconditional", True) and needs(**one.options):
            raise ValueError(f"{model.name} has no null class: leave out the guidance {one.name}")
