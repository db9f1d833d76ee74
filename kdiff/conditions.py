"""Conditions: what a model is told beside x and sigma, such as classes, prompts or masks.

Each is for all samples of a call. It is a tensor with a row for each sample, a list with an object
for each (prompts, say), or `Shared`: one value for all of them.

Some are meant for guidance, and the model itself does not get them: `negative_X`, which takes the
place of X in what guidance leads away from, `null_X`, which takes it where nothing is asked for (of
`class_labels`, that is -1), and `step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Conditions = Mapping[str, Any]
NEGATIVE, NULL, STEP, LABELS = "negative_", "null_", "step", "class_labels"
VARIANCE = "learned_variance"
GIVEN = ("x", "sigma", VARIANCE)  # what the sampler itself says
NO_CLASS = -1


@dataclass(frozen=True)
class Shared:
    """A condition that is the same for all samples; the model gets `value` as it is."""

    value: Any


# As the condition VARIANCE: answer with D and the learned variance, `[N, 2, *shape]`.
WANTED = Shared(True)


class Step(Shared):
    """The step of a run that a call belongs to: interval `index` of the grid, from noise level `s`
    to `t`. Guidance that depends on it is told it as the condition `step`."""

    def __init__(self, index: int, s: float, t: float):
        super().__init__((index, s, t))

    @property
    def index(self) -> int:
        return self.value[0]

    @property
    def s(self) -> float:
        return self.value[1]

    @property
    def t(self) -> float:
        return self.value[2]


def conditions(given: Mapping[str, Any], n: int, device: torch.device | str) -> dict[str, Any]:
    """The conditions of `n` samples: numbers as tensors `[n, ..]` on the device, other objects in
    lists of n, and `Shared`. What is None is left out; an object that is no list is shared.

    ValueError, with the name, for numbers or a list without a row for each sample.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"cond must be a mapping of names to conditions, not {given!r:.80}")
    if isinstance(given.get("class_labels"), Shared):
        raise ValueError(f"class_labels must have one row for each of the {n} samples")
    return {key: _one(key, value, n, device) for key, value in given.items() if value is not None}


def _one(key: str, value: Any, n: int, device: torch.device | str) -> Any:
    import torch

    if key in GIVEN:
        raise ValueError(f"cond must not have {key!r}: the sampler gives it")
    if isinstance(value, Shared):
        return Shared(value.value.to(device)) if _is_tensor(value.value) else value
    try:
        rows: Any = torch.as_tensor(value).to(device)
    except (TypeError, ValueError, RuntimeError):
        if key == "class_labels":
            message = f"{key} must be numbers, a row for each sample, not {value!r:.80}"
            raise ValueError(message) from None
        value = value.tolist() if hasattr(value, "tolist") else value  # an array of texts
        if not isinstance(value, list | tuple):
            return Shared(value)
        rows = list(value)
    if getattr(rows, "ndim", 1) == 0 or len(rows) != n:
        shared = "" if key == "class_labels" else "; one for all is kdiff.Shared(value)"
        raise ValueError(f"{key} must have one row for each of the {n} samples{shared}")
    return rows


def _each(cond: Conditions, change: Callable[[Any], Any]) -> dict[str, Any]:
    return {key: v if isinstance(v, Shared) else change(v) for key, v in cond.items()}


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def part(cond: Conditions, rows: slice) -> dict[str, Any]:
    """The conditions of some of the samples."""
    return _each(cond, lambda value: value[rows])


def chosen(cond: Conditions, rows: Sequence[int]) -> dict[str, Any]:
    """The conditions of the samples with these numbers."""
    return _each(
        cond,
        lambda v: v[list(rows)] if _is_tensor(v) else [v[i] for i in rows],
    )


def joined(*conds: Conditions) -> dict[str, Any]:
    """The conditions of several calls as those of one: one after the other. They must have the same
    names; what is shared must be the same in all."""

    def join(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Shared):
            return values[0]
        if _is_tensor(values[0]):
            import torch

            return torch.cat(list(values))
        return [one for value in values for one in value]

    return {key: join([cond[key] for cond in conds]) for key in conds[0]}


def alike(*conds: Conditions) -> bool:
    """Whether they can be `joined`: the names, the shapes of rows and what is shared are equal."""

    def form(value: Any) -> Any:
        if isinstance(value, Shared):
            return id(value.value)
        return value.shape[1:] if _is_tensor(value) else list

    first, *others = ({key: form(value) for key, value in cond.items()} for cond in conds)
    return all(other == first for other in others)


def own(cond: Conditions) -> dict[str, Any]:
    """Without those that are meant for guidance: what the model itself gets."""
    apart = (STEP, VARIANCE)
    return {k: v for k, v in cond.items() if k not in apart and not k.startswith((NEGATIVE, NULL))}


def negatives(cond: Conditions) -> list[str]:
    """The names of the negative conditions."""
    return [key for key in cond if str(key).startswith(NEGATIVE)]


def no_class(labels: Any) -> Any:
    """No class for each sample: -1, or in the place of rows (one-hot, or embeddings) zeros."""
    return labels.new_full(labels.shape, NO_CLASS if labels.ndim == 1 else 0)


def unconditional(cond: Conditions, none: Callable[[Any], Any] = no_class) -> dict[str, Any]:
    """With the negative class or prompt, or none, in the place of the class or prompt. ValueError
    if there is neither. `none`: what makes no class of labels."""
    return _replaced(cond, none, NEGATIVE, NULL)


def nothing(cond: Conditions, none: Callable[[Any], Any] = no_class) -> dict[str, Any]:
    """Without class and prompt, also where there are negative ones. ValueError if there is
    neither."""
    return _replaced(cond, none, NULL)


def _replaced(cond: Conditions, none: Callable[[Any], Any], *prefixes: str) -> dict[str, Any]:
    others: dict[str, Any] = {}
    for key in own(cond):
        given = [prefix + key for prefix in prefixes if prefix + key in cond]
        if given:
            others[key] = cond[given[0]]
        elif key == LABELS:
            others[key] = none(cond[key])
    if not others:
        raise ValueError("guidance needs class_labels, or a prompt, to leave out")
    return {**cond, **others}


def plain(cond: Conditions) -> dict[str, Any]:
    """As a network gets them."""
    return {key: v.value if isinstance(v, Shared) else v for key, v in own(cond).items()}
