"""Classes that guidance leads away from: what takes the place of no class in u."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kdiff.class_names import class_numbers
from kdiff.conditions import NO_CLASS
from kdiff.guidance.asking import UNCONDITIONAL
from kdiff.guidance.questions import asked_by
from kdiff.guidance.registry import GUIDANCE, check_null_class
from kdiff.modifications import Modification


def leads_away(guides: Iterable[Modification]) -> bool:
    """Whether one of them asks about samples with a negative class, or none, in the place of their
    own, so that a negative class has an effect."""
    return any(map(_takes_negative, guides))


def _takes_negative(one: Modification) -> bool:
    return any(UNCONDITIONAL in asked for asked in asked_by(one))


def needs_negative(guides: Iterable[Modification]) -> Iterator[str]:
    """The names of those that mean nothing without a negative class or prompt."""
    for one in guides:
        if GUIDANCE.find(one.name).thing.needs_negative(**one.options):
            yield one.name


def check_leads_away(several: Iterable[Sequence[Modification]]) -> None:
    """ValueError if none of these does."""
    if not any(map(leads_away, several)):
        raise ValueError(
            "a negative class is for guidance that leads away from it, such as cfg:scale=2: give "
            "one, or leave it out"
        )


def negative_classes(model: Any, guides: Sequence[Modification], text: str | None) -> list[int]:
    """The numbers of the classes in a text such as `cat,3`, which images take in turn; of none, an
    empty list.

    ValueError if the model does not have one of them, if the guides need its null class and it has
    none, or if one needs a negative class and there is none.
    """
    if text is None:
        check_null_class(model, guides)
        for name in needs_negative(guides) if model.classes else ():
            raise ValueError(f"the guidance {name} needs a negative class: give one")
        return []
    if not model.classes:
        raise ValueError(f"{model.name} has no classes: leave out the negative class")
    numbers = class_numbers(model, text)
    replaced = NO_CLASS not in numbers
    check_null_class(model, [one for one in guides if not (replaced and _served(one))])
    return numbers


def _served(one: Modification) -> bool:
    """Whether a negative class is all that it needs in the place of no class."""
    return _takes_negative(one) and not any(needs_negative([one]))
