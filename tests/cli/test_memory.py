"""The command keeps freed memory, so it has fewer page faults."""

import platform
import subprocess
import sys

import pytest

from kdiff.cli import memory

FAULTS = """
import ctypes, resource
from click.testing import CliRunner
from kdiff.cli import main

if {called}:
    CliRunner().invoke(main, ["list", "finals"])
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


def touch(size):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)


touch(2**26)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    touch(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(called, **environment):
    code = FAULTS.format(called=called)
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    return int(done.stdout)


class OldLibrary:
    """glibc as it was: no block of more than 32 MiB is to be kept."""

    def __init__(self):
        self.kept = {}

    def mallopt(self, parameter, size):
        allowed = parameter != memory.M_MMAP_THRESHOLD or size <= 2**25
        if allowed:
            self.kept[parameter] = size
        return int(allowed)


def test_an_old_library_keeps_what_it_allows(monkeypatch):
    old = OldLibrary()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: old)
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr(memory.os, "environ", {})
    memory.keep_freed_memory()
    assert old.kept == {memory.M_MMAP_THRESHOLD: 2**25, memory.M_TRIM_THRESHOLD: 2**30}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_the_command_keeps_freed_memory_unless_the_user_has_set_malloc_up():
    alone = page_faults(called=False)
    assert alone > 20 and page_faults(called=True) < alone / 20
    assert page_faults(called=True, MALLOC_ARENA_MAX="2") == pytest.approx(alone, rel=0.1)
