"""Reads files with kdiff's readers, and says of each what happened: one JSON object a line.

A process of its own, since its audit hook cannot be taken out again and a hang ends it. Lines come
in as `[surface, path, options]`; what goes out has `outcome` (`read`, `refused`, or the name of an
exception that no reader should raise), `message`, `grown` (bytes of memory at the peak), `seconds`
(of this process) and `events` (what the readers had no business to do).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from click.testing import CliRunner

import kdiff
from kdiff.cli import main
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.references import Reference, find_reference

SECONDS = 5  # of the processor's time: then SIGPROF ends the process
FORBIDDEN = (
    *("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "pty."),
    *("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "ctypes.dlopen"),
)
CHANGES = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate"),
    *("os.chmod", "os.chown", "shutil.rmtree", "shutil.move"),
)
DRIVERS = (None, "libnvidia-ml.so.1")  # the process itself, and how torch looks for a GPU
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def checkpoint(path: Path, options: dict[str, Any]) -> None:
    kdiff.load(path, **options)


def images(path: Path, options: dict[str, Any]) -> None:
    for _ in open_pictures(path).batches(4):
        pass


def reference(path: Path, options: dict[str, Any]) -> None:
    found = find_reference(str(path), "inception", "legacy_tensorflow")
    if isinstance(found, Reference):
        found.record()


def command(path: Path, options: dict[str, Any]) -> None:
    """The command line `options["line"]`, with `PATH` for the path. Errors without a message of
    kdiff's are raised."""
    line = [str(path) if word == "PATH" else word for word in options["line"]]
    result = CliRunner().invoke(main, line)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        raise ValueError(result.stderr.strip().splitlines()[-1])


def statement(path: Path, options: dict[str, Any]) -> None:
    """What a reader might do, for a test of this process itself."""
    exec(options["code"])


SURFACES: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    f.__name__: f for f in (checkpoint, images, reference, command, statement)
}


class Watch:
    """What the process does while `armed` that a reader of files must not."""

    def __init__(self, folder: Path):
        self.folder, self.armed = str(folder.resolve()), False
        self.events: list[str] = []
        self.packages: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if self._forbidden(event, arguments):
            self.events.append(f"{event} {arguments[:1]!r}"[:300])

    def _forbidden(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "import":
            return arguments[0].partition(".")[0] not in self.packages
        if event == "open":
            return bool(arguments[2] & WRITING) and self._outside(arguments[0])
        if event == "ctypes.dlopen":
            return arguments[0] not in DRIVERS
        if event in CHANGES:
            return self._outside(arguments[0])
        return event.startswith(FORBIDDEN)

    def _outside(self, path: Any) -> bool:
        if isinstance(path, int):  # a file that is open already
            return False
        return not os.path.realpath(os.fsdecode(path)).startswith((self.folder, "/dev/null"))


def memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024


def outcome(surface: str, path: Path, options: dict[str, Any]) -> tuple[str, str]:
    try:
        SURFACES[surface](path, options)
    except ValueError as error:
        return "refused", str(error)
    except click.exceptions.Exit:
        return "read", ""
    except BaseException as error:
        return type(error).__name__, "".join(traceback.format_exception(error)[-6:])
    return "read", ""


def judged(watch: Watch, surface: str, path: Path, options: dict[str, Any]) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, began = memory("VmRSS"), time.process_time()
    watch.events = []
    watch.packages = {name.partition(".")[0] for name in sys.modules}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    watch.armed = True
    kind, message = outcome(surface, path, options)
    watch.armed = False
    signal.setitimer(signal.ITIMER_PROF, 0)
    return {
        "outcome": kind,
        "message": message,
        "grown": memory("VmHWM") - before,
        "seconds": time.process_time() - began,
        "events": watch.events,
    }


def serve(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ["KDIFF_TRACEBACK"] = "1"  # other errors than messages go through
    answers, sys.stdout = sys.stdout, sys.stderr
    watch = Watch(folder)
    sys.addaudithook(watch)
    for line in sys.stdin:
        surface, path, options = json.loads(line)
        print(json.dumps(judged(watch, surface, Path(path), options)), file=answers, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
