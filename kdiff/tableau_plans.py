"""Plans of tableaux: each is a sampler that brings its own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdiff.counts import MOST_STEPS, whole_number
from kdiff.model_data import first_of, first_record
from kdiff.modifications import Modification
from kdiff.planned import Plan, network_nfe
from kdiff.samplers.replay import needs_mean, replaying
from kdiff.tableau_files import PREFIX, TableauFile, by_budget, read_tableau


def replayed(
    model: Any, path: Path, own: str, nfe: int | None, edited: Sequence[Modification]
) -> Plan:
    """The plan of a tableau, or of the largest in a folder that `nfe` evaluations pay for."""
    if not path.is_dir():
        leave_out(own, {"nfe": nfe})
        return _replay(model, read_tableau(path), edited)
    files = by_budget(path)
    there = ", ".join(map(str, sorted(files)))
    if nfe is None:
        raise ValueError(
            f"{path} has tableaux for several numbers of evaluations: give nfe, of {there}"
        )
    nfe = whole_number("nfe", nfe, 1, MOST_STEPS)
    for asks, file in files.items():
        found = read_tableau(file)
        if found.tableau.nfe != asks:
            raise ValueError(f"{file} has {found.tableau.nfe} asks, not {asks} as its name says")
        made = _replay(model, found, edited)
        if network_nfe(model, made) <= nfe:
            return made
    raise ValueError(f"{path} has no tableau that nfe = {nfe} pays for: it has {there}")


def _replay(model: Any, file: TableauFile, edited: Sequence[Modification]) -> Plan:
    record: dict[str, Any] = {"sha256": file.sha256}
    mean = 0.0
    if needs_mean(file.tableau):
        data = first_of(model, "analytic")
        assert data is not None
        mean, record["mean"] = data.mean, first_record(data)["mean"]
    sampler = replaying(
        f"{PREFIX}{file.name}",
        file.tableau,
        file.sigmas,
        noise=file.noise,
        mean=mean,
        paper=f"a tableau of {(file.source or {}).get('sampler', 'unknown origin')!s:.80}",
    )
    return Plan(sampler, {}, file.sigmas, "tableau", edited, tableau=record)


def leave_out(why: str, said: Mapping[str, Any]) -> None:
    """ValueError if any of these is given."""
    for key, value in said.items():
        if value is not None:
            raise ValueError(f"{why}: leave out {key}")
