"""What `kdiff sample` leaves in a folder: pictures, an overview, and the record that names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdiff.files import parse_json, read_text

RECORD, OVERVIEW = "run.json", "grid.png"
MOST_RECORD = 2**26  # bytes; a million seeds of 20 digits take 22 million


def picture_name(seed: int) -> str:
    return f"{seed:06d}.png"


@dataclass(frozen=True)
class Run:
    """The names of a run's pictures, and of its trajectory if that lies beside them."""

    pictures: frozenset[str]
    trajectory: str | None = None


def parse_run(text: str) -> Run | None:
    """What the text of a run.json says; None if `kdiff sample` did not write it."""
    try:
        record = parse_json(text, RECORD)
    except ValueError:
        return None
    if not isinstance(record, dict) or "sampler" not in record:
        return None
    seeds, trajectory = record.get("seeds"), record.get("trajectory")
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        return None
    plain = isinstance(trajectory, str) and Path(trajectory).name == trajectory
    return Run(frozenset(map(picture_name, seeds)), trajectory if plain else None)


def files_of_run(folder: Path) -> list[Path]:
    """The pictures, and the trajectory, of the run that is in a folder: those that its run.json
    names and that are there; none if there is no such record."""
    if not (folder / RECORD).is_file():
        return []
    try:
        run = parse_run(read_text(folder / RECORD, MOST_RECORD))
    except (ValueError, OSError):
        return []
    names = [] if run is None else sorted([*run.pictures, *filter(None, [run.trajectory])])
    return [folder / name for name in names if (folder / name).is_file()]
