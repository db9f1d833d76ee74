"""The record of `kdiff eval-fid`, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdiff.cli.run_record import how_made
from kdiff.eval.evaluation import Figure

PAPERS_NUM = 50_000


def lines(record: dict[str, Any], figures: Mapping[str, Figure]) -> list[str]:
    """A line for each thing that the record says."""
    images, reference = record["images"], record["reference"]
    shown = [f"{name:12} {digits(f)}   N = {f.n:,}" for name, f in figures.items()]
    for backend, found in record["backends"].items():
        values = ", ".join(f"{name} {value:.6g}" for name, value in found["figures"].items())
        shown.append(f"{backend:12} {values or 'no figure'} ({found['note']})")
    how = f", {how_made(images)}" if images["kind"] == "model" else ""
    shown += [
        f"images       {images['source']}{how}",
        f"reference    {reference['name']}, N = {count(reference['n'])}",
        f"features     {record['features']['name']}"
        + (f", {record['features']['resize']}" if record["features"]["resize"] else ""),
        f"speed        {record['images_per_second']:.1f} images/s"
        + (", the other libraries included" if record["backends"] else ""),
    ]
    for name, floor in (record["noise_floor"] or {}).items():
        shown.append(
            f"note         {name} depends on N: {images['n']:,} perfect images would get about "
            f"{floor:.3g}; compare it at the same N only"
            + (f" (papers: {PAPERS_NUM:,})" if images["n"] < PAPERS_NUM else "")
        )
    return [*shown, *(f"note         {note}" for note in record["notes"])]


def digits(figure: Figure) -> str:
    if figure.error is None:
        return f"{figure.value:.4g}"
    return f"{figure.value:.4g} ± {figure.error:.2g}"


def count(n: int | None) -> str:
    return "unknown" if n is None else f"{n:,}"
