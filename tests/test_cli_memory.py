"""That the command keeps freed memory, told by the page faults that it does not have."""

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_the_command_keeps_freed_memory_unless_the_user_has_set_malloc_up():
    alone = page_faults(called=False)
    assert alone > 20 and page_faults(called=True) < alone / 20
    assert page_faults(called=True, MALLOC_ARENA_MAX="2") == pytest.approx(alone, rel=0.1)
