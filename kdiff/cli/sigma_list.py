"""A grid that is given on the command line, in itself or in a file."""

from __future__ import annotations

import json

from kdiff.files import user_path


def sigma_list(text: str) -> list[float]:
    """`80,10,1,0`, or the name of a file with a JSON list or a number on each line. ValueError says
    what is wrong."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return _from_file(text)


def _from_file(name: str) -> list[float]:
    wanted = "a list such as 80,10,1,0, or a file with a JSON list or a number a line"
    path = user_path(name)
    if not path.is_file():
        raise ValueError(f"--sigmas takes {wanted}, not {name!r:.80}")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if text.lstrip().startswith("[") else text.split()
        return [float(number) for number in found]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} must be {wanted}: {error!s:.80}") from None
