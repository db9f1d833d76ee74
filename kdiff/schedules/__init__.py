"""Noise schedules: decreasing lists of sigmas, Python floats, built in float64.

`registry` has what a schedule is and how it is found; `building` makes a grid of one. The schedules
are in `continuous` (any model), `timesteps` (models with a table of timesteps) and `published`
(numbers that were found by search, for certain models).
"""

# These register their schedules, in the order in which `kdiff list schedules` shows them.
from kdiff.schedules.building import (
    FINALS,
    LARGEST_SIGMA,
    SMALLEST_SIGMA,
    Range,
    check_sigmas,
    schedule,
)
from kdiff.schedules.continuous import exponential, karras, polyexponential, vp
from kdiff.schedules.published import ays, gits, oss
from kdiff.schedules.registry import SCHEDULES, Schedule, find, registered
from kdiff.schedules.timesteps import even, leading, linspace, trailing

__all__ = [
    "FINALS",
    "LARGEST_SIGMA",
    "SCHEDULES",
    "SMALLEST_SIGMA",
    "Range",
    "Schedule",
    "ays",
    "check_sigmas",
    "even",
    "exponential",
    "find",
    "gits",
    "karras",
    "leading",
    "linspace",
    "oss",
    "polyexponential",
    "registered",
    "schedule",
    "trailing",
    "vp",
]
