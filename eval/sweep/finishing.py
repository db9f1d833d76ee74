"""From what a sweep has of a cell to its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from kdiff.conditions import part
from kdiff.driver import State
from kdiff.environment import environment
from kdiff.eval.evaluation import Figure
from kdiff.eval.images.from_model import every_class, three_channels
from kdiff.eval.metrics import frechet
from kdiff.eval.sweep import converged_solution as converged
from kdiff.eval.sweep.cell import RMSE, Cell
from kdiff.eval.sweep.claims import Claims
from kdiff.eval.sweep.folder import SweepFolder
from kdiff.eval.sweep.tally import CONVERGED, PICTURES, Tally, one_line
from kdiff.images import to_uint8


@dataclass(frozen=True)
class Finish:
    """Makes lines of cells: a function of a cell, its tally and its model. `callback` gets each
    `State` of a converged solution, which is computed where `claims` let no other process do so."""

    folder: SweepFolder
    batch: int
    claims: Claims
    callback: Callable[[State], None]

    def __call__(
        self, cell: Cell, tally: Tally, model: Any, told: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The cell's line, after its pictures are written. OSError if the disk fails."""
        line = {
            "key": cell.key,
            "cell": cell.record,
            "status": "failed",
            "error": tally.error,
            **({"nfe": None} if tally.adaptive else {}),
            "metrics": {},
            "grid": None,
            "noise_floor": None,
            "converged": None,
            "environment": environment(model.device),
        }
        if tally.error is None:
            try:
                line |= {**self._measured(cell, tally, model, told), "status": "ok"}
            except OSError:
                raise
            except Exception as error:  # the sweep goes on, whatever is wrong with one cell
                line["error"] = one_line(error)
        return {**line, "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _measured(
        self, cell: Cell, tally: Tally, model: Any, told: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a line has if all went well."""
        figures = tally.collector.figures() if tally.collector is not None else {}
        made = None
        if RMSE in cell.metrics:
            figures["RMSE"], made = self._distance(cell, tally, model, told)
        figures["seconds"] = Figure(tally.seconds, None, len(cell.seeds))
        shown = torch.from_numpy(tally.first(PICTURES)).to(model.device)
        pictures = three_channels(to_uint8(model.decode(shown)))
        return {
            **({"nfe": taken(tally.evaluations)} if tally.adaptive else {}),
            "metrics": {name: plain(figure) for name, figure in figures.items()},
            "noise_floor": noise_floor(cell),
            "converged": made,
            "grid": self.folder.save_grid(cell.key, pictures),
        }

    def _distance(
        self, cell: Cell, tally: Tally, model: Any, told: Mapping[str, Any]
    ) -> tuple[Figure, dict[str, Any]]:
        """The mean over seeds of the RMSE to the converged solution, with its standard error; and
        how that solution was made, and how far off it may be itself."""
        x = tally.first(CONVERGED)
        labels, _ = every_class(model, len(cell.seeds))
        away = cell.away(range(len(x)))
        solution = converged.cached(
            self.folder.path / "converged",
            {
                **{"model": cell.model.sha256, "dtype": cell.dtype, "device": model.device.type},
                **cell.model.guidance_by_hash(),
                **away,
                **cell.model.asked(),
            },
            model,
            converged.course(model, cell.plan),
            cell.seeds[: len(x)],
            labels and labels[: len(x)],
            {**away, **part(told, slice(len(x)))},
            batch=self.batch,
            callback=self.callback,
            claim=self.claims.hold,
        )
        each = converged.rmse(x, solution.x)
        error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else None
        made = {"sampler": converged.SAMPLER, "steps": converged.STEPS, "error": solution.error}
        return Figure(float(each.mean()), error, len(each)), made


def taken(evaluations: list[int]) -> dict[str, Any]:
    """What an adaptive sampler took: the mean over samples, and the most of any."""
    return {"mean": float(np.mean(evaluations)), "most": max(evaluations)}


def noise_floor(cell: Cell) -> dict[str, float] | None:
    """What as many perfect samples would get for their Frechet distance."""
    if "fid" not in cell.metrics or cell.network is None or cell.reference is None:
        return None
    floor = frechet.noise_floor(cell.reference.gaussian, len(cell.seeds))
    return {cell.network.label("FID"): floor}


def plain(figure: Figure) -> dict[str, Any]:
    error = None if figure.error is None else float(figure.error)
    return {"value": float(figure.value), "error": error, "n": int(figure.n)}
