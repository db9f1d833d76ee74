"""Classes that guidance leads away from: what takes the place of no class in u."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kdiff.class_names import class_numbers
from kdiff.guidance.registry import GUIDANCE, check_null_class
from kdiff.modifications import Modification


def leads_away(guides: Iterable[Modification]) -> bool:
    """Whether one of them asks about samples without their class, so that a negative class has an
    effect."""
    return any(GUIDANCE.find(one.name).thing.needs_null_class(**one.options) for one in guides)


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
        for one in guides if model.classes else ():
            if GUIDANCE.find(one.name).thing.needs_negative(**one.options):
                raise ValueError(f"the guidance {one.name} needs a negative class: give one")
        return []
    if not model.classes:
        raise ValueError(f"{model.name} has no classes: leave out the negative class")
    numbers = class_numbers(model, text)
    check_null_class(model, guides, numbers)
    return numbers
