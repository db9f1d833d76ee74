"""Pickled networks that claim to be what they are not: each is refused in one line, at a cost that
fits the size of its file."""

import pytest
import torch

import kdiff
from hostile_files import Call
from hostile_networks import holding, refused, storage, tensor, write
from kdiff.networks.edm2_unet import EDM2UNet
from nvidia_pickles import Persistent, module, network, snapshot, tree

pytestmark = pytest.mark.usefixtures("trap")


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
        lambda: tensor(shape=(10**6, 10**5), stride=(0, 0)),  # a copy would take 400 GB
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
