"""Claims: which of the processes that share a folder does what.

A claim is a file that only one process can create. Its process touches it every few seconds. If
the process is dead, or has not touched the file for a minute, another may create the claim's next
generation, a file that again only one can create. So nobody removes what another has just made.
Claims need neither locks, which network file systems may lack, nor clocks that agree.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdiff.files import parse_json, to_json

BEAT, STALE = 10.0, 60.0  # seconds
POLL = 0.2
WRITING = "lines"  # what a process claims while it writes to a file that all write to


class Claims:
    """The claims of this process in a folder, while the block lasts. OSError, from any method, if
    the folder cannot be written to, or is not there any more."""

    def __init__(self, folder: Path):
        self.folder = folder / ".claims"
        self._held: dict[str, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)
        with suppress(OSError):
            self.folder.rmdir()  # unless others have claims

    def take(self, name: str) -> bool:
        """Claim it, unless another process has it."""
        newest = self._newest(name)
        if newest >= 0 and self._is_alive(self._path(name, newest)):
            return False
        self.folder.mkdir(exist_ok=True)
        path = self._path(name, newest + 1)
        try:
            with path.open("x", encoding="utf-8") as file:
                self._held[name] = newest + 1
                file.write(to_json({"node": _node(), "pid": os.getpid()}, indent=None))
        except (FileExistsError, FileNotFoundError):  # another was faster, or has tidied up
            return False
        except OSError as error:
            self.release(name)
            raise OSError(error.errno, error.strerror, str(path)) from error
        if self._newest(name) == newest + 1:
            return True
        self.release(name)
        return False

    def release(self, name: str) -> None:
        """Give it back."""
        for generation in range(self._held.pop(name) + 1):
            with suppress(OSError):
                self._path(name, generation).unlink()

    def holds(self, name: str) -> bool:
        """Whether it is still this process's: one that was suspended may have been succeeded."""
        newest = self._newest(name)
        if newest < 0 and not self.folder.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "was removed", str(self.folder.parent))
        return newest == self._held[name]

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Claim it for the block, waiting until that is possible."""
        while not self.take(name):
            time.sleep(POLL / 10)
        try:
            yield
        finally:
            self.release(name)

    def holder(self, name: str) -> str:
        """Who has it, in words."""
        owner = _owner(self._path(name, max(self._newest(name), 0)))
        return f"process {owner['pid']} on {owner['node'].split()[0]}" if owner else "another"

    def _path(self, name: str, generation: int) -> Path:
        return self.folder / f"{name}.{generation}"

    def _newest(self, name: str) -> int:
        """The newest generation, -1 if there is none."""
        with suppress(FileNotFoundError):
            ends = [path.name.removeprefix(f"{name}.") for path in self.folder.iterdir()]
            return max((int(end) for end in ends if end.isdecimal()), default=-1)
        return -1

    def _is_alive(self, path: Path) -> bool:
        owner = _owner(path)
        if owner and owner["node"] == _node() and not _runs(owner["pid"]):
            return False
        try:
            touched = path.stat().st_mtime
        except FileNotFoundError:  # it has just been given back
            return True
        os.utime(self.folder)  # so both times are the file server's
        return self.folder.stat().st_mtime - touched < STALE

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            for name, generation in list(self._held.items()):
                with suppress(OSError):
                    os.utime(self._path(name, generation))


def _owner(path: Path) -> dict[str, Any] | None:
    """What a claim says; None if it is gone, or not written yet."""
    try:
        owner = parse_json(path.read_text(encoding="utf-8"), path)
    except (OSError, ValueError):
        return None
    said = isinstance(owner, dict) and {"node": str, "pid": int}
    return owner if said and all(isinstance(owner.get(k), t) for k, t in said.items()) else None


def _node() -> str:
    """This machine, as far as its numbers of processes go: containers have their own."""
    spaces = ""
    with suppress(OSError):
        spaces = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {spaces}"


def _runs(pid: int) -> bool:
    if os.name != "posix":  # where a signal of 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
