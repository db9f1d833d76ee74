"""State dicts, taken out of the wrappers that training scripts put around them.

A network is found by the names of its tensors, wherever in the file they are: in dicts within dicts
(`{"model": .., "ema": ..}`, Lightning's `state_dict`), behind prefixes (`module.`, `_orig_mod.`,
`ema_model.`), as the list of an average's `shadow_params`, or under names without dots, as latent
diffusion's `LitEma` keeps them. If there are several, the moving average is taken, unless
`weights` names one. Nothing is guessed: two that are equally good are an error.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kdiff.checkpoints import MissingSetting, torch_zip

_DEPTH, _MOST = 4, 200_000  # of nested dicts, and of all their entries
_MANY = 32  # networks of one kind in one dict
# The parts that torch.compile, FSDP, activation checkpointing and DeepSpeed add inside names.
_INSIDE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
_SILENT = {*_INSIDE, "module", "_module"}  # prefixes without a meaning
AVERAGE = re.compile(r"(?:^|[._])(?:ema|averag|avg|swa|shadow)", re.IGNORECASE)

_Place = tuple[str, ...]


class Found(NamedTuple):
    """A network in a file: its place (`ema.module`), its tensors under its own names, the tensors
    beside it under its owner's names, and the parts that were removed from names."""

    label: str
    tensors: dict[str, Tensor]
    owner: dict[str, Tensor]
    wrapper: str

    @property
    def average(self) -> bool:
        """Whether its place says that it is a moving average."""
        return bool(AVERAGE.search(self.label)) and "online" not in self.label


def read(path: Path) -> Any:
    """The content of a torch.save or safetensors file, tensors mapped. ValueError for others."""
    if path.is_file():
        with open(path, "rb") as file:
            safetensors = file.read(9)[8:] == b"{"
        if safetensors:
            try:
                return load_file(path)
            except (SafetensorError, OSError) as error:
                told = f"not a whole safetensors file, as of a download that stopped: {error}"
                raise ValueError(told) from error
    return torch_zip.read(path)


def find(
    saved: Any, marks: Sequence[str], *, inner: str = "", fixed: Collection[str] = ()
) -> list[Found]:
    """Every network that has tensors of the names `marks`. `inner`: the name under which a wrapper
    of the project's own may hold it (`model.`). `fixed`: tensors that are not parameters, which a
    list of averages leaves out."""
    found: list[Found] = []
    for path, tensors in _state_dicts(saved, fixed):
        tensors, removed = _without_inside(tensors)
        prefixes = _prefixes(tensors, marks)
        for prefix in prefixes:
            within = tuple(p for p in prefixes if p != prefix and p.startswith(prefix))
            kept = {k: v for k, v in tensors.items() if not k.startswith(within)}
            found.append(_found(path, kept, prefix, inner, removed))
            average = _without_dots(tensors, prefix)
            if average is not None:
                found.append(_found(path, average[1], average[0], inner, removed))
    return found


def missing(saved: Any, marks: Sequence[str], **how: Any) -> str | None:
    """None if there is such a network (see `find`), else which of the marks is missing."""
    if find(saved, marks, **how):
        return None
    nowhere = (mark for mark in marks if not find(saved, [mark], **how))
    return f"no {next(nowhere, marks[0])}"


def take(
    saved: Any,
    marks: Sequence[str],
    weights: str | None = None,
    *,
    inner: str = "",
    fixed: Collection[str] = (),
) -> tuple[Found, dict[str, str]]:
    """The network to load, and the choice in words for `Denoiser.facts`. `weights` names one by its
    place, or a part of it. `ema` also means any average, and `model` any other network.

    MissingSetting if there are several of a kind, or an average that cannot be read. ValueError if
    the file has no network of this kind or name.
    """
    found = find(saved, marks, inner=inner, fixed=fixed)
    if not found:
        raise ValueError(f"no {marks[0]}")
    if weights is None:
        averages = [one for one in found if one.average]
        lost = None if averages else _unread_average(saved)
        if lost:
            raise MissingSetting(
                f"its moving average, {lost}, does not fit the network: give weights=model to take "
                "the network without it"
            )
        matching = averages or found
    else:
        matching = _named(found, weights)
    # One network saved under two names leaves nothing to choose.
    different: dict[int, Found] = {}
    for one in matching:
        different.setdefault(id(next(iter(one.tensors.values()))), one)
    matching = list(different.values())
    if len(matching) > 1:
        places = ", ".join(one.label or "the file's own" for one in matching)
        raise MissingSetting(f"it has several networks of this kind: give weights= one of {places}")
    return matching[0], _facts(matching[0], weights is not None, len(found))


class Contents(NamedTuple):
    """The largest state dict in a file: the names of its tensors, and its wrapper in words
    (`ema, behind module.`)."""

    names: list[str]
    around: str


def contents(saved: Any) -> Contents:
    """The content of a file whose network is not known."""
    every = _state_dicts(saved, ())
    path, tensors = max(every, key=lambda pair: len(pair[1]), default=((), {}))
    levels = zip(*(key.split(".")[:-1] for key in tensors), strict=False)
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    behind = f"behind {'.'.join(common)}." if common and len(tensors) > 1 else ""
    return Contents(list(tensors), ", ".join(filter(None, (".".join(path), behind))))


def _state_dicts(saved: Any, fixed: Collection[str]) -> Iterator[tuple[_Place, dict[str, Tensor]]]:
    """The tensors of each dict that holds any, with the keys that lead to it."""
    for path, mapping in _mappings(saved):
        tensors = torch_zip.tensors_under("", mapping)
        if tensors:
            yield path, tensors
        for key, value in mapping.items():
            listed = value.get("shadow_params") if isinstance(value, Mapping) else value
            named = isinstance(key, str) and (listed is not value or AVERAGE.search(key))
            if named and isinstance(listed, list | tuple):
                yield from _listed((*path, key), listed, mapping, fixed)


def _mappings(saved: Any) -> Iterator[tuple[_Place, Mapping]]:
    """Every nested dict, with the keys that lead to it, the outer ones first."""
    pending: deque[tuple[_Place, Any]] = deque([((), saved)] if isinstance(saved, Mapping) else [])
    left = _MOST  # a dict can contain itself, or be in several others
    while pending and left > 0:
        path, value = pending.popleft()
        left -= 1 + len(value)
        yield path, value
        pending += [
            ((*path, key), inside)
            for key, inside in value.items()
            if type(key) is str and isinstance(inside, Mapping) and len(path) < _DEPTH
        ]


def _listed(
    path: _Place, listed: Sequence[Any], beside: Mapping, fixed: Collection[str]
) -> Iterator[tuple[_Place, dict[str, Tensor]]]:
    """A list of averages, under the names of the network beside it with as many tensors."""
    for value in beside.values():
        tensors = torch_zip.tensors_under("", value)
        trained = [k for k in tensors if not any(f".{k}".endswith(f".{f}") for f in fixed)]
        if trained and len(trained) == len(listed) and all(isinstance(t, Tensor) for t in listed):
            yield path, {**tensors, **dict(zip(trained, listed, strict=True))}


def _without_inside(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors under shorter names, unless two would clash, and the removed parts."""
    renamed = {_cleaned(key, _INSIDE): value for key, value in tensors.items()}
    if renamed.keys() == tensors.keys() or len(renamed) < len(tensors):
        return tensors, ""
    return renamed, ", ".join(part for part in sorted(_INSIDE) if any(part in k for k in tensors))


def _cleaned(name: str, silent: Collection[str]) -> str:
    return ".".join(part for part in name.split(".") if part not in silent)


def _prefixes(tensors: Mapping[str, Tensor], marks: Sequence[str]) -> list[str]:
    """The prefixes under which all of the marks are found."""
    first = marks[0]
    candidates = [k.removesuffix(first) for k in tensors if f".{k}".endswith(f".{first}")]
    prefixes = [p for p in candidates if all(p + mark in tensors for mark in marks)]
    if len(prefixes) > _MANY:
        raise ValueError(f"it has {len(prefixes)} networks of one kind in one dict")
    return prefixes


def _found(
    path: _Place, tensors: dict[str, Tensor], prefix: str, inner: str, removed: str
) -> Found:
    owner = prefix.removesuffix(inner) if f".{prefix}".endswith(f".{inner}") else prefix
    label = ".".join(filter(None, (*path, _cleaned(owner.rstrip("."), _SILENT))))
    place = ".".join((*path, prefix)).rstrip(".") or (removed and "the file")
    around = (place, removed and f"without {removed}")
    return Found(
        label,
        torch_zip.tensors_under(prefix, tensors),
        torch_zip.tensors_under(owner, tensors),
        ", ".join(filter(None, around)),
    )


def _without_dots(
    tensors: Mapping[str, Tensor], prefix: str
) -> tuple[str, dict[str, Tensor]] | None:
    """LitEma's average of the tensors behind `prefix`: `model_ema.ab` belongs to `model.a.b`. It
    gets the prefix that it would have with dots. Tensors without an average are the network's."""
    parts = prefix.split(".")[:-1]
    inside = [key for key in tensors if key.startswith(prefix)]
    for i in range(len(parts)):
        outer = ".".join(parts[: i + 1]) + "."
        average = ".".join((*parts[:i], f"{parts[i]}_ema")) + "."
        names = {k: average + k.removeprefix(outer).replace(".", "") for k in inside}
        kept = {k: tensors[name] for k, name in names.items() if name in tensors}
        if 2 * len(kept) > len(inside):
            whole = {**{k: tensors[k] for k in inside}, **kept}
            return average + prefix.removeprefix(outer), {
                average + k.removeprefix(outer): value for k, value in whole.items()
            }
    return None


def _named(found: Sequence[Found], weights: str) -> list[Found]:
    kinds = {"ema": True, "model": False}
    for matches in (
        lambda one: one.label == weights,
        lambda one: (
            weights in one.label.split(".") and one.average is kinds.get(weights, one.average)
        ),
        lambda one: one.average is kinds.get(weights),
    ):
        matching = [one for one in found if matches(one)]
        if matching:
            return matching
    places = ", ".join(one.label or "one without a name" for one in found)
    raise ValueError(f"weights={weights!r} is not in it; its networks of this kind: {places}")


def _unread_average(saved: Any) -> str | None:
    for path, mapping in _mappings(saved):
        for key, value in mapping.items():
            if isinstance(key, str) and AVERAGE.search(key) and _holds_tensors(value):
                return ".".join((*path, key))
    return None


def _holds_tensors(value: Any) -> bool:
    """Whether it holds tensors in dicts, or in lists inside them. A single tensor is a setting."""
    values = [inside for _, mapping in _mappings(value) for inside in mapping.values()]
    lists = [inside for inside in (value, *values) if isinstance(inside, list | tuple)]
    return any(isinstance(v, Tensor) for v in [*values, *(v for inside in lists for v in inside)])


def _facts(chosen: Found, told: bool, count: int) -> dict[str, str]:
    """The choice in words: empty if there was neither a choice nor a wrapper."""
    how = ", as told" if told else ""
    if chosen.average:
        average = next(part for part in chosen.label.split(".") if AVERAGE.search(part))
        return {"weights": f"the moving average ({average}){how}"}
    if not chosen.wrapper and not told:
        return {}
    none = "" if told or count > 1 else "; there is no moving average beside them"
    return {"weights": f"those in {chosen.wrapper or 'the file'}{how}{none}"}
