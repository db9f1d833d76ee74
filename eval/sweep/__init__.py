"""Sweeps: from a description to cells, and from cells to lines in a folder."""

from kdiff.eval.sweep.cell import RMSE, Cell, Judge, ModelSpec
from kdiff.eval.sweep.combinations import check_judges, expand
from kdiff.eval.sweep.folder import SweepFolder
from kdiff.eval.sweep.models import Models
from kdiff.eval.sweep.running import run
from kdiff.eval.sweep.selection import of_shard, outstanding

__all__ = [
    "RMSE",
    "Cell",
    "Judge",
    "ModelSpec",
    "Models",
    "SweepFolder",
    "check_judges",
    "expand",
    "of_shard",
    "outstanding",
    "run",
]
