"""What other packages add to kdiff, through entry points of their distributions.

[project.entry-points."kdiff.samplers"]
my_samplers = "my_package.samplers"          # a module: its @sampler functions register
[project.entry-points."kdiff.schedules"]
my_schedule = "my_package.schedules:mine"    # f(n, sigma_min, sigma_max) or f(n, steps)
[project.entry-points."kdiff.guidance"]
my_guidance = "my_package.guidance"          # a module: its @guidance functions register
[project.entry-points."kdiff.editing"]
my_edits = "my_package.editing"              # a module: its @edit functions register
[project.entry-points."kdiff.checkpoints"]
my_format = "my_package.checkpoints"         # a module with NAME, detect and load
[project.entry-points."kdiff.preconditioners"]
my_precond = "my_package.preconds:mine"      # f(**settings) -> kdiff.Precond
[project.entry-points."kdiff.networks"]
my_network = "my_package.networks:Net"       # an nn.Module class, for kdiff/1 files
[project.entry-points."kdiff.metrics"]
my_metric = "my_package.metrics:METRIC"      # a kdiff.eval.metrics.Metric
[project.entry-points."kdiff.features"]
my_features = "my_package.features:mine"     # f(uint8 [N, H, W, 3]) -> [N, D]

docs/extending.md has an example of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any


@cache
def plugins(group: str) -> Mapping[str, Any]:
    """The objects of all entry points in `group`, by name. One that cannot be loaded is left out,
    with a warning: it must not stop what does not need it."""
    found = {}
    for point in entry_points(group=group):
        try:
            found[point.name] = point.load()
        except Exception as error:
            warnings.warn(f"cannot load {point.value} of {group}: {error!r}", stacklevel=2)
    return found
