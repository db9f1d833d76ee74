"""Loading a file of N bytes takes the network's memory, in the type asked for, and 0.2 N at most:
1.2 N for a float32 file, or with `dtype=None`. For each format, in a process of its own."""

import select
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import nvidia_pickles
from small_checkpoints import KINDS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
CODE = """
    import sys, torch, kdiff
    options = eval(sys.argv[3])
    kdiff.load(sys.argv[1], **options)  # what it imports, and its threads
    print(flush=True)
    input()
    model = kdiff.load(sys.argv[2], **options)
    print(sum(p.nbytes for p in model.network.state_dict().values()), flush=True)
    input()
"""


def memory(process, what):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    found = [line.split()[1] for line in lines if line.startswith(what)]
    assert found, "the process that loads died"
    return int(found[0]) * 1024


def peak(process, what):
    """The most until the process says something."""
    most = 0
    while not select.select([process.stdout], [], [], 0.001)[0]:
        most = max(most, memory(process, what))
    return max(most, memory(process, what))


@pytest.mark.parametrize("kind", KINDS)
def test_loading_takes_the_network_s_memory_and_little_more(kind, tmp_path, monkeypatch):
    write, width, options = KINDS[kind]
    nvidia_pickles.nvidia_names(monkeypatch)
    small, large = write(tmp_path / "small.pt", 32), write(tmp_path / "large.pt", width)
    size = sum(p.stat().st_size for p in [large, *large.glob("*")] if p.is_file())
    command = [sys.executable, "-c", textwrap.dedent(CODE), small, large, repr(options)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, bufsize=1, stdin=pipe, stdout=pipe) as process:
        process.stdout.readline()
        # diffusers maps its file for as long as the network lives: not counted are these pages,
        # which the system takes back when it needs them.
        now, most = ("RssAnon", "RssAnon") if kind == "diffusers" else ("VmRSS", "VmHWM")
        before = memory(process, now)
        process.stdin.write("\n")
        grown = peak(process, most) - before
        network = int(process.stdout.readline())
        process.stdin.write("\n")
    print(f"{kind}: {size / 1e6:.0f} MB, network {network / size:.2f}, peak {grown / size:.2f}")
    assert 0.5 * network < grown < network + 0.2 * size
