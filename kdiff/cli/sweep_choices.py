"""What the options of `kdiff sweep` say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import click
import torch

from kdiff.cli.evaluating import choose_evaluation
from kdiff.cli.grid_options import key_value
from kdiff.cli.lists import as_list, as_numbers
from kdiff.cli.modification_options import said, short_form
from kdiff.eval.evaluation import Collector, all_metrics
from kdiff.eval.features import DEFAULT_FEATURES
from kdiff.eval.sweep import RMSE, Judge, ModelSpec
from kdiff.guidance import GUIDANCE
from kdiff.model_data import FIRSTS
from kdiff.models import find_model, sha256
from kdiff.modifications import Modification, several
from kdiff.names import Registry, unknown_name
from kdiff.samplers import UnknownName
from kdiff.schedules import FINALS

NONE = "none"  # of --first: the network answers


def choose_sizes(steps: str | None, nfe: str | None) -> list[dict[str, int]]:
    if steps is not None and nfe is not None:
        raise ValueError("give only one of --steps and --nfe")
    if nfe is not None:
        return [{"nfe": n} for n in dict.fromkeys(as_numbers("--nfe", nfe))]
    if steps is None:
        return [{}]  # as `kdiff.plan` has it: tableaux have steps of their own
    return [{"steps": n} for n in dict.fromkeys(as_numbers("--steps", steps))]


def choose_ends(final: str | None, first: str | None) -> list[dict[str, Any]]:
    """`zero,sigma_min` and `none,analytic` -> every combination. ValueError for other words."""
    finals = [None] if final is None else _some_of("--final", final, FINALS)
    firsts = [NONE] if first is None else _some_of("--first", first, (NONE, *FIRSTS))
    pairs = product(finals, firsts)
    return [{"final": end, "first": None if begin == NONE else begin} for end, begin in pairs]


def _some_of(name: str, text: str, known: Sequence[str]) -> list[str]:
    words = list(dict.fromkeys(as_list(name, text)))
    for word in words:
        if word not in known:
            raise ValueError(f"{name} takes a list of {' and '.join(known)}, not {word!r:.80}")
    return words


def choose_options(words: Sequence[str]) -> dict[str, list[str]]:
    """`eta=0,0.5` -> {"eta": ["0", "0.5"]}, what is given twice put together."""
    chosen: dict[str, list[str]] = {}
    for key, values in map(key_value, words):
        chosen.setdefault(key, []).extend(as_list(f"--option {key}", values))
    return chosen


def choose_modifications(
    registry: Registry[Any], words: Sequence[str]
) -> list[tuple[Modification, ...]]:
    """`cfg:scale=1,1.5` and `other:w=2` -> (cfg:scale=1, other:w=2), (cfg:scale=1.5, other:w=2):
    every combination of values, of all that is given, in its order; one empty tuple if nothing is.
    ValueError or UnknownName says what is wrong, or click.UsageError."""
    return list(product(*(said(several, registry, text) for text in words)))


def choose_guides(scales: str | None, words: Sequence[str]) -> list[tuple[Modification, ...]]:
    """Those of --guide, each after each scale of --guidance, if there are any. Errors as
    `choose_modifications`; click.UsageError if a scale is not a number."""
    guides = choose_modifications(GUIDANCE, words)
    if scales is None:
        return guides
    each = dict.fromkeys(as_list("--guidance", scales))
    return [(*short_form(scale, own), *own) for scale, own in product(each, guides)]


def choose_measures(text: str) -> list[tuple[str, str | None]]:
    """Each metric once and known, in the order of METRICS, and the network that it is of, None if
    all; `none` is an empty list: NFE and seconds only."""
    wanted = []
    for part in as_list("--metrics", text):
        name, at, network = part.partition("@")
        wanted.append((name.lower(), network if at else None))
    if wanted == [("none", None)]:
        return []
    known = [*all_metrics(), RMSE]
    for metric, of in wanted:
        if metric not in known:
            raise UnknownName(unknown_name("metric", metric, known))
        if metric == RMSE and of is not None:
            raise ValueError(f"{RMSE} looks through no network: leave out @{of}")
    return sorted(set(wanted), key=lambda one: (known.index(one[0]), one[1] or ""))


def choose_judges(
    wanted: Sequence[tuple[str, str | None]],
    n: int,
    device: torch.device,
    evaluating: Mapping[str, Any],
) -> tuple[list[Judge], list[str]]:
    """A judge for each feature network that has something to look at, or else a single one, and
    notes on their references. ValueError if one of the metrics cannot be had from these."""
    names = list(dict.fromkeys(as_list("--features", evaluating["features"])))
    for metric, of in wanted:
        if of not in (None, *names):
            raise ValueError(f"{metric}@{of}: {of!r} is none of --features {','.join(names)}")
    judges, notes = [], []
    for name in names:
        metrics = tuple(dict.fromkeys(metric for metric, of in wanted if of in (None, name)))
        judged = [metric for metric in metrics if metric != RMSE]
        if not judged:
            continue
        chosen = {**evaluating, "features": name}
        if name != DEFAULT_FEATURES and DEFAULT_FEATURES in names:  # they are for that one
            chosen |= {"resize": None, "weights": None}
        network, reference, remarks = choose_evaluation(judged, device, **chosen)
        Collector(judged, n, network, reference)
        judges.append(Judge(metrics, network, reference))
        notes += remarks
    return judges or [Judge(tuple(metric for metric, _ in wanted))], notes


def choose_model(name: str) -> ModelSpec:
    path = find_model(name)
    return ModelSpec(name, path, sha256(path))


def choose_shard(text: str | None) -> tuple[int, int] | None:
    """`2/4` -> (2, 4)."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise click.UsageError(f"--shard takes I/N with I from 1 to N, such as 1/4, not {text!r}")
    return int(i), int(n)
