"""Errors that no command foresaw, in one line each."""

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
    """The error in one line. What is not a bug, such as a full disk, comes without the exception's
    name and place."""
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
    """The error's type, what it says, where it comes from, and how to see more."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = one_line(error, 200)
    kind = type(error).__name__
    said = kind if text == kind else f"{kind}: {text}"
    return f"{said}{where} ({VARIABLE}=1 shows the traceback)"


def open_streams() -> None:
    """Closed standard streams lead nowhere from now on, so that no file that is opened takes their
    place. What a terminal cannot show, such as a name that is not text, is shown escaped."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        with suppress(AttributeError):  # of a stream that is not a file
            getattr(sys, name).reconfigure(errors="backslashreplace")


def close_output(error: BaseException) -> None:
    """If the error is of printing, drop what is left to print: Python would try again at exit."""
    if _printing(error):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _printing(error: BaseException) -> bool:
    return any(f.name == "echo" for f in traceback.extract_tb(error.__traceback__))
