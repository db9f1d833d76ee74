"""Ctrl-C while modules are imported, which takes seconds if torch is among them.

This is imported first, so it imports nothing that takes time.
"""

import os
import signal
import sys

STATUS = 128 + signal.SIGINT


class ExitAtOnce:
    """In the block, Ctrl-C ends the process silently: there is nothing to clean up yet, and many
    libraries turn an exception during their import into another. Programs that handle Ctrl-C
    themselves, or import in another thread, are left alone, as are all if it is not `wanted`."""

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
    """Around the imports of the package, for `kdiff` and `python -m kdiff` but no other program."""
    caller = os.path.basename(getattr(sys, "argv", [""])[0])
    return ExitAtOnce(caller in ("kdiff", "kdiff.exe", "-m"))
