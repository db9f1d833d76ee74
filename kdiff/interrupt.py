"""Ctrl-C while a command is only being loaded, which takes a second or more.

Imported before all else, so it imports nothing that takes time.
"""

import os
import signal
import sys

STATUS = 128 + signal.SIGINT


class ExitAtOnce:
    """Ctrl-C in the block ends the process without a word: nothing has begun that needs an end, and
    an exception amid an import is turned into others. A program that handles Ctrl-C itself, or
    imports in another thread, keeps its way; so does one where it is not `wanted`."""

    def __init__(self, wanted: bool = True):
        self.wanted = wanted and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def __enter__(self) -> None:
        if self.wanted:
            try:
                signal.signal(signal.SIGINT, lambda *_: os._exit(STATUS))
            except ValueError:  # not the main thread
                self.wanted = False

    def __exit__(self, *_: object) -> None:
        if self.wanted:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def importing() -> ExitAtOnce:
    """For the import of the package by `kdiff` or `python -m kdiff`, not by somebody's program."""
    caller = os.path.basename(getattr(sys, "argv", [""])[0])
    return ExitAtOnce(caller in ("kdiff", "kdiff.exe", "-m"))
