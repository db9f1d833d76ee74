"""Which files are opened, by Python or by anything else: as Linux's inotify tells it."""

import ctypes
import os
import struct
from contextlib import contextmanager
from pathlib import Path

IN_OPEN, IN_Q_OVERFLOW, IN_ISDIR = 0x20, 0x4000, 0x40000000
EVENT = struct.Struct("iIII")


@contextmanager
def opened_files(folder):
    """A set that has, after the block, the files that were opened in the folder and below it."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_NONBLOCK)
    assert queue >= 0, os.strerror(ctypes.get_errno())
    folders = [folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())]
    watched = {libc.inotify_add_watch(queue, os.fsencode(p), IN_OPEN): p for p in folders}
    assert min(watched) >= 0
    opened: set[Path] = set()
    try:
        yield opened
        while events := _read(queue):
            while events:
                watch, mask, _, length = EVENT.unpack_from(events)
                name = events[EVENT.size : EVENT.size + length].rstrip(b"\0")
                events = events[EVENT.size + length :]
                assert not mask & IN_Q_OVERFLOW
                if not mask & IN_ISDIR:
                    opened.add(watched[watch] / os.fsdecode(name))
    finally:
        os.close(queue)


def _read(queue):
    try:
        return os.read(queue, 1 << 16)
    except BlockingIOError:
        return b""
