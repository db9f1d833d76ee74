"""What `kdiff list` shows: everything in kdiff that has a name, a row for each."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdiff.hashes import sha256_of_file
from kdiff.modifications import Modification
from kdiff.names import Registry

Row = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """`source`: MODULE:NAME of a mapping from names to things, or of a function that makes one; it
    is imported only when it is shown. `columns` are those of the table, and `facts(name, thing)` is
    what only things of this kind have; `note` stands below the table."""

    source: str
    columns: Sequence[str]
    facts: Callable[[str, Any], Row] = lambda name, thing: {}
    note: str = ""

    def rows(self) -> list[Row]:
        """All of it, with the things of other packages."""
        found = pkgutil.resolve_name(self.source)
        things = found() if callable(found) else found
        things = things.all() if isinstance(things, Registry) else things
        return [
            {"name": name, **described(thing), **self.facts(name, thing)}
            for name, thing in things.items()
        ]


def described(thing: Any) -> Row:
    """What a thing says of itself, as far as it does."""
    row: Row = {"about": about(thing)} if about(thing) else {}
    for key in ("label", "paper"):
        if isinstance(getattr(thing, key, None), str):
            row[key] = getattr(thing, key)
    if hasattr(thing, "options"):
        row["options"] = {
            key: {"default": option.default, "allowed": option.allowed(), "help": option.help}
            for key, option in thing.options.items()
        }
    if hasattr(thing, "aliases") or hasattr(thing, "presets"):
        row["aliases"] = [*getattr(thing, "aliases", ()), *getattr(thing, "presets", ())]
    if hasattr(thing, "settings") or inspect.isfunction(thing) or inspect.isclass(thing):
        row["settings"] = {key: plain(value) for key, value in settings(thing).items()}
    return row


def about(thing: Any) -> str:
    """The first paragraph of what is written about it, on one line."""
    texts = [thing, *(getattr(thing, key, None) for key in ("about", "help"))]
    text = next((text for text in texts if isinstance(text, str)), None)
    if text is None:
        written = getattr(thing, "function", thing)
        own = inspect.isfunction(written) or inspect.isclass(written) or inspect.ismodule(written)
        text = (inspect.getdoc(written) or "") if own else ""
    return " ".join(text.partition("\n\n")[0].split())


def settings(thing: Any) -> Mapping[str, Any]:
    """Its settings and their defaults."""
    if hasattr(thing, "settings"):
        return thing.settings
    parameters = inspect.signature(thing).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | list | tuple | None) else repr(value)


def sampler_facts(name: str, sampler: Any) -> Row:
    return {
        "order": sampler.order(sampler.with_defaults()),
        "nfe_20_steps": sampler.nfe(20),
        "noise": sampler.noise if sampler.stochastic() else "none",
    }


def guidance_facts(name: str, guidance: Any) -> Row:
    """What it asks networks for, with its default options and nothing inside."""
    from kdiff.guidance.questions import asked_by  # only where it is shown, as all that is listed

    options = {key: option.default for key, option in guidance.options.items()}
    asked = asked_by(Modification(name, options))
    always, ever = asked[0].intersection(*asked), asked[0].union(*asked)
    return {
        "asks": [*sorted(always), *(f"{one} (at some levels)" for one in sorted(ever - always))]
    }


def schedule_facts(name: str, schedule: Any) -> Row:
    return {"for": "discrete models" if schedule.discrete else "any model"}


def model_facts(name: str, path: Any) -> Row:
    return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path), "file": str(path)}


LISTINGS = {
    "samplers": Listing(
        "kdiff.samplers:REGISTRY",
        ["name", "order", "nfe_20_steps", "noise", "aliases", "options"],
        sampler_facts,
    ),
    "schedules": Listing(
        "kdiff.schedules:SCHEDULES", ["name", "for", "settings", "about"], schedule_facts
    ),
    "guidance": Listing(
        "kdiff.guidance:GUIDANCE",
        ["name", "asks", "aliases", "options", "paper"],
        guidance_facts,
        "Guidance with a memory, such as APG's momentum, is an edit: `kdiff list edits`.",
    ),
    "edits": Listing("kdiff.editing:EDITS", ["name", "aliases", "options", "paper"]),
    "preconditioners": Listing("kdiff.preconditioners:PRECONDS", ["name", "settings", "about"]),
    "networks": Listing("kdiff.networks:NETWORKS", ["name", "about"]),
    "models": Listing("kdiff.models:packaged_models", ["name", "bytes", "sha256"], model_facts),
    "formats": Listing("kdiff.checkpoints:formats", ["name", "about"]),
    "metrics": Listing("kdiff.eval.metrics:all_metrics", ["name", "about"]),
    "features": Listing("kdiff.eval.features:feature_networks", ["name", "about"]),
}
