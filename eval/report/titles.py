"""What the titles and captions of tables say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdiff.eval.report.cells import WITHOUT_NETWORK, Figure, Result, higher_is_better


def names(subjects: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, str]]:
    """For each table, a metric and one of its cells, its model's name and its title, which says
    what sets it apart from others of the same metric."""
    models = [cell["model"] for _, cell in subjects]
    found = []
    for metric, cell in subjects:
        model = str(_name(cell["model"], models))
        alike = [other for name, other in subjects if name == metric]
        every = [_judge(other, alike) for other in alike]
        own = _judge(cell, alike)
        told = [text for key, text in own.items() if len({one.get(key) for one in every}) > 1]
        found.append((model, ", ".join([metric, model, *told])))
    return found


def _judge(cell: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """In words, what it has of network, resize mode and reference."""

    def name(key: str) -> str | None:
        return _name(cell.get(key), [other.get(key) for other in among])

    resize = (cell.get("features") or {}).get("resize")
    words = {
        **{"features": ("network", name("features")), "resize": ("resize", resize)},
        **{"reference": ("against", name("reference"))},
    }
    return {key: f"{word} {value}" for key, (word, value) in words.items() if value}


def _name(one: Mapping[str, Any] | None, among: Sequence[Mapping[str, Any] | None]) -> str | None:
    """Its name, with its hash's start if another has the same name."""
    if one is None:
        return None
    name = str(one.get("name"))
    hashes = {_hash(other) for other in among if other and other.get("name") == one.get("name")}
    return f"{name} {_hash(one)[:8]}" if len(hashes) > 1 else name


def _hash(one: Mapping[str, Any]) -> str:
    return str(one.get("sha256") or one.get("weights"))


def about(cell: Mapping[str, Any], metric: str, n: int, figures: Sequence[Figure]) -> str:
    """What the figures are, of cells like `cell`."""
    better = "higher" if higher_is_better(metric) else "lower"
    text = WITHOUT_NETWORK.get(metric, metric)
    features, reference = cell.get("features"), cell.get("reference")
    if features and metric not in WITHOUT_NETWORK:
        if reference and not metric.startswith("IS"):
            size = f" ({reference['n']:,} images)" if reference.get("n") else ""
            text += f" against {reference.get('name')}{size}"
        resize = f", resize {features['resize']}" if features.get("resize") else ""
        text += f", network {features.get('name')}{resize}"
    return f"{text}; {better} is better. N = {n:,} images in each {_repeats(figures)}"


def about_columns(name: str, results: Sequence[Result], elsewhere: int) -> str:
    """What to say of a table by the values of an option, before its noise floor."""
    steps = {str(result.cell.get("steps")) for result in results}
    nfe = sorted({result.nfe for result in results if result.nfe is not None})
    text = f" Columns are values of {name}"
    if len(steps) == 1:
        text += f", all with {steps.pop()} steps"
    if nfe:
        text += f", NFE {nfe[0]:.10g}" + (f" to {nfe[-1]:.10g}" if len(nfe) > 1 else "")
    text += "; bold is the best of its row."
    return text + (f" Cells without it: {elsewhere}, not shown here." if elsewhere else "")


def _repeats(figures: Sequence[Figure]) -> str:
    counts = sorted({figure.repeats for figure in figures})
    if counts == [1]:
        known = any(figure.error is not None for figure in figures)
        return "figure" + (", ± its evaluation's own error." if known else "; no error is known.")
    most = counts[-1]
    text = f"of {most} repeats, of which a figure is the mean ± its standard error"
    return text + ("; (of 1) and the like mark fewer." if len(counts) > 1 else ".")
