"""References that have a name: those that come with kdiff, and the user's own."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from kdiff.data_folder import data_folder
from kdiff.eval.references.file import load_label, load_reference
from kdiff.eval.references.reference import Label, Reference
from kdiff.models import ASSETS

NAME = "[A-Za-z0-9][A-Za-z0-9._-]*"
PACKAGED = ASSETS / "references"


def stored_references() -> dict[Path, Label]:
    """First those that come with the package, then the user's own in kdiff's data folder. A damaged
    file there is passed over, with a warning."""
    stored = _packaged()
    try:
        own = sorted(_own_folder().glob("*.safetensors"))
    except (OSError, ValueError) as error:
        warnings.warn(f"your own references are passed over: {error}", stacklevel=2)
        return stored
    for path in own:
        try:
            stored[path] = load_label(path)
        except ValueError as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
    return stored


def stored_names() -> list[str]:
    return list(dict.fromkeys(label.name for label in stored_references().values()))


def own_path(name: str, features: str, resize: str | None) -> Path:
    """Where the user's reference of that name goes. ValueError if it is not a name, or if such a
    reference comes with the package."""
    if not re.fullmatch(NAME, name):
        raise ValueError(f"a name has letters, digits, '.', '_' and '-' only, not {name!r}")
    file = "-".join(filter(None, (name, re.sub(r"[^\w.-]", "_", features), resize)))
    if (PACKAGED / f"{file}.safetensors").exists():
        raise ValueError(
            f"{name} for {network_and_mode(features, resize)} comes with kdiff: choose another name"
        )
    return _own_folder() / f"{file}.safetensors"


def find_stored(name: str, features: str, resize: str | None) -> Reference | None:
    """None if nothing has that name. ValueError if it is there for another network or mode only."""
    for stored in (_packaged, stored_references):  # the user's folder only if it is needed
        named = {path: label for path, label in stored().items() if label.name == name}
        for path, label in named.items():
            if (label.features, label.resize) == (features, resize):
                return load_reference(path)
    if named:
        there = ", ".join(network_and_mode(x.features, x.resize) for x in named.values())
        raise ValueError(
            f"reference {name} is there for {there}, not for {network_and_mode(features, resize)}: "
            "choose one of those, or make it with `kdiff ref make`"
        )
    return None


def network_and_mode(features: str | None, resize: str | None) -> str:
    """`inception (clean)`."""
    return f"{features} ({resize})" if resize else str(features)


def _packaged() -> dict[Path, Label]:
    return {path: load_label(path) for path in sorted(PACKAGED.glob("*.safetensors"))}


def _own_folder() -> Path:
    return data_folder() / "references"
