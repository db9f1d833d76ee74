"""What a person is told when something goes wrong that no command foresaw: one line."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from kdiff.messages import one_line

VARIABLE = "KDIFF_TRACEBACK"


def wants_traceback() -> bool:
    return os.environ.get(VARIABLE) == "1"


def told(error: BaseException) -> str:
    """What happened, in one line: for what is no fault of a program, without its name and place."""
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if error.filename else ""
        named = f"{name:.200}: " if name else "cannot print: " if _printing(error) else ""
        return f"{named}{error.strerror}"
    if isinstance(error, MemoryError):
        return f"there is not enough memory for this: {one_line(error, 200)}"
    if isinstance(error, ValueError | OSError):
        return one_line(error, 300)
    return unforeseen(error)


def unforeseen(error: BaseException) -> str:
    """Its kind, what it says, where it comes from, and how to see more."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = one_line(error, 200)
    kind = type(error).__name__
    said = kind if text == kind else f"{kind}: {text}"
    return f"{said}{where} ({VARIABLE}=1 shows the traceback)"


def open_streams() -> None:
    """Standard streams that were closed lead nowhere, so that no file that is opened takes their
    place; and what a terminal cannot show, such as a name that is not text, is shown escaped."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        with suppress(AttributeError):  # of a stream that is not a file
            getattr(sys, name).reconfigure(errors="backslashreplace")


def close_output(error: BaseException) -> None:
    """What could not be printed is lost, and is not tried again when the process ends."""
    if _printing(error):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _printing(error: BaseException) -> bool:
    return any(f.name == "echo" for f in traceback.extract_tb(error.__traceback__))
