"""Classes by name or number, as texts such as `cat, 3, none` have them."""

from __future__ import annotations

from typing import Any

from kdiff.conditions import NO_CLASS


def class_numbers(model: Any, text: str) -> list[int]:
    """`cat, 3, none` -> [5, 3, -1] with the model's own names; case does not count.

    ValueError for a class that the model does not have, be it none.
    """
    numbers = [class_number(model, name.strip()) for name in text.split(",")]
    if NO_CLASS in numbers and not getattr(model, "unconditional", True):
        raise ValueError(f"{model.name} has no null class: leave out the class none")
    return numbers


def class_number(model: Any, name: str) -> int:
    """The number of one class. ValueError, which lists the classes, if there is none such."""
    if name.lower() == "none":
        return NO_CLASS
    names = [own.lower() for own in model.classes]
    if name.lower() in names:
        return names.index(name.lower())
    if name.isdecimal() and int(name) < len(model.classes):
        return int(name)
    not_numbers = [own for i, own in enumerate(model.classes) if own != str(i)]
    valid = ", ".join(["none", f"0 to {len(model.classes) - 1}", *not_numbers])
    raise ValueError(f"unknown class {name!r}; {model.name} has {valid}")
