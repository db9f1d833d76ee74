"""Hostile pickles: each is refused in one line, nothing in it runs, and reading it takes no more
time and memory than an honest file of that size."""

import contextlib
import io
import operator
import os
import pickle
import resource
import struct
import sys
from pathlib import Path

import pytest
import torch

import kdiff
import nvidia_pickles
import places
from kdiff.checkpoints import edm
from kdiff.networks.edm2_unet import EDM2UNet
from nvidia_pickles import Persistent, module, network, nvidia_names, snapshot, tree

GOLDEN = places.GOLDEN / "edm_vp.pkl"
EVIL = ""  # the shell command and program that would leave a trace; see `trap`


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.fixture(autouse=True)
def trap(tmp_path, monkeypatch):
    """The file that must not appear: its absence afterwards is every test's second check."""
    monkeypatch.setattr(sys.modules[__name__], "EVIL", str(tmp_path / "it_ran"))
    monkeypatch.setattr(nvidia_pickles, "SOURCE", f"open({EVIL!r}, 'w')")
    nvidia_names(monkeypatch)
    yield
    assert not (tmp_path / "it_ran").exists()


def holding(part):
    """A network that is just one module."""
    made = network({})
    made.meta["state"]["_modules"]["a"] = part
    return made


def write(tmp_path, content, protocol=4):
    path = tmp_path / "network-snapshot-000001.pkl"
    path.write_bytes(content if type(content) is bytes else pickle.dumps(content, protocol))
    return path


def refused(path) -> str:
    """The line with which kdiff.load refuses; edm.load alone must refuse in one line as well."""
    for load in (kdiff.load, edm.load):
        with pytest.raises(ValueError) as caught:
            load(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_honest_one_loads_and_its_source_text_does_not_run(tmp_path, protocol):
    model = kdiff.load(write(tmp_path, snapshot(network()), protocol))
    assert model(torch.zeros(1, 3, 8, 8), 1.0).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Call(os.system, f"touch {EVIL}"),
        lambda: Call(eval, f"open({EVIL!r}, 'w')"),
        lambda: Call(exec, f"open({EVIL!r}, 'w')"),
        lambda: Call(open, EVIL, "w"),
        lambda: Call(__import__, "this"),
        lambda: Call(getattr, "", "format"),
        lambda: Call(os.mkdir, EVIL),
        lambda: Call(torch.load, EVIL),
        lambda: Call(torch.hub.load, "owner/repository", "model"),
        lambda: Call(Path.touch, Path(EVIL)),
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
    evil = Call(os.system, f"touch {EVIL}")
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


def storage(claimed=4, dtype="FloatStorage", stored=None, data=bytes(16), order=True):
    """The bytes of a storage of torch's, with any claim about itself."""
    system = {"protocol_version": 1001, "little_endian": order, "type_sizes": {}}
    parts = [0x1950A86A20F9469CFC6C, 1001, system]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    described = (
        b"\x80\x02(X\x07\x00\x00\x00storage"
        + b"ctorch\n"
        + dtype.encode()
        + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + pickle.dumps(claimed, 2)[2:-1]
        + b"NtQ."
    )
    keys = pickle.dumps(["0"], 2)
    count = struct.pack("<q", claimed if stored is None else stored)
    return head + described + keys + count + data


def tensor(content=None, offset=0, shape=(4,), stride=(1,)):
    load = Call(torch.storage._load_from_bytes, storage() if content is None else content)
    return Call(torch._utils._rebuild_tensor_v2, load, offset, shape, stride, False, {})


@pytest.mark.parametrize(
    "make",
    [
        lambda: tensor(storage(claimed=25 * 10**9)),
        lambda: tensor(storage(claimed=25 * 10**9, stored=4)),
        lambda: tensor(storage(stored=25 * 10**9)),
        lambda: tensor(storage(claimed=-1)),
        lambda: tensor(storage(claimed=2**62)),
        lambda: tensor(storage(dtype="QInt8Storage")),
        lambda: tensor(storage(order=False)),
        lambda: tensor(storage()[:-3]),
        lambda: tensor(storage()[:40]),
        lambda: tensor(b""),
        lambda: tensor(shape=(10**6, 10**5), stride=(0, 0)),  # 400 GB, if it were copied
        lambda: tensor(shape=(10**11,), stride=(0,)),
        lambda: tensor(offset=3),
        lambda: tensor(offset=-1),
        lambda: tensor(stride=(2,)),
        lambda: tensor(stride=(1, 1)),
        lambda: tensor(shape=(2.0, 2.0), stride=(1, 1)),
        lambda: tensor(shape=[[4]]),
        lambda: tensor(shape=None),
        lambda: Call(torch._utils._rebuild_tensor_v2),
    ],
)
def test_tensors_that_claim_what_they_are_not(tmp_path, make):
    refused(write(tmp_path, snapshot(network({"weight": make()}))))


def test_one_storage_for_many_tensors(tmp_path):
    load = Call(torch.storage._load_from_bytes, storage())
    rebuild = torch._utils._rebuild_tensor_v2
    shared = {f"w{i}": Call(rebuild, load, 0, (4,), (1,), False, {}) for i in range(3)}
    assert "storage of its own" in refused(write(tmp_path, snapshot(network(shared))))


@pytest.mark.parametrize(
    "settings",
    [
        {"num_blocks": 10**9},
        {"num_blocks": 1.5},
        {"num_blocks": "many"},
        {"num_blocks": [1]},
        {"channel_mult": [1] * 10**5},
        {"channel_mult": 7},
        {"channel_mult": []},
        {"channel_mult": ["a", "b"]},
        {"model_channels": 10**9},
        {"model_channels": 10**30},
        {"model_channels": -8},
        {"img_resolution": 10**12},
        {"label_dim": 10**12},
        {"embedding_type": "eval"},
        {"encoder_type": "skip"},
        {"decoder_type": "skip"},
        {"resample_filter": [1] * 10**4},
        {"forward": "eval"},
        {"self": 1},
        {"dropout": {"p": 1}},
    ],
)
def test_settings_that_do_not_fit(tmp_path, settings):
    refused(write(tmp_path, snapshot(network(**settings))))


@pytest.mark.parametrize(
    "state",
    [
        {"sigma_data": "0.5"},
        {"sigma_data": 0},
        {"sigma_min": float("nan")},
        {"img_channels": float("inf")},
        {"img_resolution": [8]},
        {"_modules": {}},
        {"_modules": {"model": 3}},
        {"_modules": None},
    ],
)
def test_a_preconditioner_that_is_not_one(tmp_path, state):
    pickled = snapshot(network())
    pickled["ema"].meta["state"] |= state
    refused(write(tmp_path, pickled))


def test_a_module_inside_itself(tmp_path):
    loop = {}
    loop["a"] = Persistent("Conv2d", _parameters={}, _buffers={}, _modules=loop)
    model = network({})
    model.meta["state"]["_modules"] = loop
    assert "part of two, or of itself" in refused(write(tmp_path, snapshot(model)))


def test_modules_that_double_at_each_level(tmp_path):
    made = module()
    for _ in range(64):
        made = module(modules={"a": made, "b": made})
    assert "part of two" in refused(write(tmp_path, snapshot(holding(made))))


def test_names_that_add_up(tmp_path):
    name, made = "a" * 100_000, module()
    for _ in range(100):
        made = module(modules={name: made})
    assert "without end" in refused(write(tmp_path, snapshot(holding(made))))


@pytest.mark.parametrize("kind", ["class_name", "encoder_type", "sigma_data", "dropout"])
def test_doubling_tuples_are_not_printed(tmp_path, kind):
    doubling = ()
    for _ in range(64):
        doubling = (doubling, doubling)
    pickled = snapshot(
        network(**({} if kind in ("class_name", "sigma_data") else {kind: doubling}))
    )
    if kind == "class_name":
        pickled["ema"].meta["class_name"] = doubling
    if kind == "sigma_data":
        pickled["ema"].meta["state"][kind] = doubling
    refused(write(tmp_path, pickled))


def test_classes_without_end(tmp_path):
    """An EDM2 network without a channel has no weights to show how many classes it has."""
    with torch.device("meta"):
        empty = EDM2UNet(8, 3, label_dim=10**12, model_channels=0, channel_mult=[1], num_blocks=1)
    model = tree({key: torch.empty(value.shape) for key, value in empty.state_dict().items()})
    given = {"img_resolution": 8, "img_channels": 3, "label_dim": 10**12, "model_channels": 0}
    given |= {"channel_mult": [1], "num_blocks": 1}
    model.meta["state"] |= {"_init_args": (), "_init_kwargs": given}
    settings = {"img_resolution": 8, "img_channels": 3, "sigma_data": 0.5}
    pickled = {"ema": module("Precond", {"unet": model}, **settings)}
    with pytest.raises(ValueError, match=r"a tensor of 0 values"):
        kdiff.load(write(tmp_path, pickled))


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
        b"\x80\x04}" + b")" + b"\x85" * 100_000 + b"Ns.",  # .. as a key
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
    """The first 6,000 bytes have all kinds of opcodes; a changed value may still load."""
    whole = GOLDEN.read_bytes()
    for at in range(0, 6000, 151):
        damaged = bytearray(whole)
        damaged[at] ^= 0x5A
        with contextlib.suppress(ValueError):
            edm.load(write(tmp_path, bytes(damaged)))


def test_memory_is_bounded(tmp_path):
    """Claims of 100 GB, within an address space that is a few GB larger than now."""
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
        os.truncate(name, 2**32)  # of which the disk has none
        assert "a name without an end" in refused(name)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
