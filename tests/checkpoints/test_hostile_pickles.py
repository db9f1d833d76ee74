"""Hostile pickles: each is refused in one line, nothing in it runs, and reading it takes no more
time and memory than an honest file of that size."""

import contextlib
import io
import operator
import os
import resource
import struct
from pathlib import Path

import pytest
import torch

import hostile_networks
import kdiff
import places
from hostile_files import Call
from hostile_networks import refused, storage, tensor, write
from kdiff.checkpoints import edm
from nvidia_pickles import network, snapshot

GOLDEN = places.GOLDEN / "edm_vp.pkl"
pytestmark = pytest.mark.usefixtures("trap")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_honest_one_loads_and_its_source_text_does_not_run(tmp_path, protocol):
    model = kdiff.load(write(tmp_path, snapshot(network()), protocol))
    assert model(torch.zeros(1, 3, 8, 8), 1.0).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Call(os.system, f"touch {hostile_networks.EVIL}"),
        lambda: Call(eval, f"open({hostile_networks.EVIL!r}, 'w')"),
        lambda: Call(exec, f"open({hostile_networks.EVIL!r}, 'w')"),
        lambda: Call(open, hostile_networks.EVIL, "w"),
        lambda: Call(__import__, "this"),
        lambda: Call(getattr, "", "format"),
        lambda: Call(os.mkdir, hostile_networks.EVIL),
        lambda: Call(torch.load, hostile_networks.EVIL),
        lambda: Call(torch.hub.load, "owner/repository", "model"),
        lambda: Call(Path.touch, Path(hostile_networks.EVIL)),
        lambda: Call(operator.methodcaller, "system"),
        lambda: os.system,  # the name alone
    ],
)
@pytest.mark.parametrize("place", ["top", "beside", "tensor", "setting"])
def test_calls(tmp_path, call, place):
    hidden = {
        "top": call,
        "beside": lambda: snapshot(network(), loss_fn=call()),
        "tensor": lambda: snapshot(network({"weight": call()})),
        "setting": lambda: snapshot(network(dropout=call())),
    }[place]()
    assert "has the name" in refused(write(tmp_path, hidden))


def test_a_call_inside_a_storage(tmp_path):
    buffer = io.BytesIO()
    evil = Call(os.system, f"touch {hostile_networks.EVIL}")
    torch.save({"x": evil}, buffer, _use_new_zipfile_serialization=False)
    load = Call(torch.storage._load_from_bytes, buffer.getvalue())
    tensor = Call(torch._utils._rebuild_tensor_v2, load, 0, (1,), (1,), False, {})
    assert "system'" in refused(write(tmp_path, snapshot(network({"weight": tensor}))))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"\x80\x04Pevil\n.", "PERSID"),
        (b"\x80\x04K\x01Q.", "BINPERSID"),
        (b"\x80\x04(S'touch it_ran'\nios\nsystem\n.", "STRING"),
        (b"\x80\x04(ios\nsystem\n.", "INST"),
        (b"\x80\x04(K\x01o.", "OBJ"),
        (b"\x80\x04\x82\x01.", "EXT1"),
        (b"\x80\x04)}\x92.", "NEWOBJ_EX"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x04I1\n.", "INT"),
        (b"\x80\x05\x96" + struct.pack("<Q", 10**11) + b".", "BYTEARRAY8"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".", "LONG4"),
    ],
)
def test_opcodes_that_no_network_needs(tmp_path, code, name):
    assert f"has the opcode {name}," in refused(write(tmp_path, code))


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b"\x80",
        b"\x80\x04",
        b"\x80\x04.",
        b"\x80\x04]\x94h\x00a.",  # a list inside itself
        b"\x80\x04}\x94K\x01h\x00s.",  # a dict inside itself
        b"\x80\x04" + b")" + b"\x85" * 100_000 + b".",  # tuples, one inside another
        b"\x80\x04}" + b")" + b"\x85" * 100_000 + b"Ns.",  # the same as a key
        b"\x80\x04(" + b")" + b"\x85" * 100_000 + b"\x90.",
        b"\x80\x04)" + b"\x94h\x00\x86" * 3 + b"0" * 9,
        b"\x80\x04)" + b"\x94" + b"".join(b"h" + bytes([i]) * 2 + b"\x86\x94" for i in range(99)),
        b"\x80\x04)\x85\x8c\x01x\x93.",  # a name that is a tuple
        b"\x80\x04Nj\xff\xff\xff\xff.",
        b"\x80\x04Nr\xff\xff\xff\x7f.",  # CPython's own reader takes 16 GB for this
        b"\x80\x04B\xff\xff\xff\xff.",
        b"\x80\x04\x8e" + struct.pack("<Q", 10**11) + b".",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**63 + 5) + b".",
        b"\x80\x04\x8c\xff.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
        b"\x80\x04}(K\x01u.",
        b"\x80\x04K\x01K\x02b.",
        b"\x80\x04K\x01)R.",
        b"\x80\x04ccollections\nOrderedDict\n(K\x01K\x02tR.",
        b"\x80\x04cos.path\nos.system\n.",
        b"\x80\x04cos\n.",
        b"\x80\x04" + b"}" * 1_000_001 + b".",
        b"\x80\x04" + bytes(range(256)),
        b"\x80\x04X\x04\x00\x00\x00\xff\xff\xff\xff.",
    ],
    ids=range(28),
)
def test_damaged_and_recursive_pickles(tmp_path, code):
    refused(write(tmp_path, code))


@pytest.mark.parametrize("part", [0.0005, 0.01, 0.1, 0.5, 0.9, 0.999, 0.99999])
def test_truncated(tmp_path, part):
    whole = GOLDEN.read_bytes()
    refused(write(tmp_path, whole[: int(len(whole) * part)]))


def test_any_damaged_byte_is_harmless(tmp_path):
    """The first 6,000 bytes have all kinds of opcodes. A changed value may still load."""
    whole = GOLDEN.read_bytes()
    for at in range(0, 6000, 151):
        damaged = bytearray(whole)
        damaged[at] ^= 0x5A
        with contextlib.suppress(ValueError):
            edm.load(write(tmp_path, bytes(damaged)))


def test_memory_is_bounded(tmp_path):
    """Claims of 100 GB are refused within an address space 2 GB larger than now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
    try:
        for make in (
            lambda: b"\x80\x04\x8e" + struct.pack("<Q", 10**11) + b".",
            lambda: b"\x80\x04Nr\xff\xff\xff\x7f.",
            lambda: snapshot(network({"weight": tensor(storage(claimed=25 * 10**9))})),
            lambda: snapshot(network({"weight": tensor(shape=(10**11,), stride=(0,))})),
            lambda: snapshot(network(model_channels=10**6)),
        ):
            refused(write(tmp_path, make()))
        name = write(tmp_path, b"\x80\x04c")
        os.truncate(name, 2**32)  # a sparse file: it takes no space on the disk
        assert "a name without an end" in refused(name)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
