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


def remove_run(folder: Path) -> None:
    """Remove the run that is in a folder, and no other file: what its run.json names, that record
    and the overview. OSError if a file cannot be removed."""
    names = [OVERVIEW, RECORD]
    if (folder / RECORD).is_file():
        try:
            run = parse_run(read_text(folder / RECORD, MOST_RECORD))
        except ValueError:
            run = None
        if run is not None:
            names = [*run.pictures, *filter(None, [run.trajectory]), *names]
    for name in names:
        if (folder / name).is_file():
            (folder / name).unlink()
