"""What each sampler was compared with: the table `parity.json`, whose rows are tests.

    "sampler": [
     {"with": "package version, its name", "difference": 1e-15, "test": "tests/..py", "note": ".."}
    ]

`difference` is the largest one measured, relative to the largest component of the result; `note`,
which may be missing, says in which options both agree, or what is corrected here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from kdiff.files import parse_json

FILE = "parity.json"


@cache
def table() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """The rows of each sampler."""
    return parse_json(files(__package__).joinpath(FILE).read_text("utf-8"), FILE)


def rows(sampler: str) -> Sequence[Mapping[str, Any]]:
    """Of one sampler; none for those of other packages."""
    return table().get(sampler, ())
