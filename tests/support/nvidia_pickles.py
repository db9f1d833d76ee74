"""Pickles as NVIDIA's code writes them, without that code."""

import sys
import types

from kdiff.networks.song_unet import SongUNet

SOURCE = ""  # of the program that every object brings along, and that must not run
SETTINGS = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 8,
    "channel_mult": [1, 1],
    "num_blocks": 1,
}


def nvidia_names(monkeypatch):
    """What pickle needs in order to write the names of NVIDIA's modules."""
    name = "torch_utils.persistence"
    fake = types.ModuleType(name)
    fake._reconstruct_persistent_obj = lambda meta: None
    fake._reconstruct_persistent_obj.__module__ = name
    fake._reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, name, fake)


class Persistent:
    """Pickles as torch_utils.persistence writes an object."""

    def __init__(self, name, **state):
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": name,
            "state": state,
        }

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def module(name="Conv2d", modules=(), parameters=(), **state):
    state = {"_parameters": dict(parameters), "_buffers": {}, "_modules": dict(modules), **state}
    return Persistent(name, **state)


def tree(tensors):
    """The modules that a state dict describes."""
    here = {name: value for name, value in tensors.items() if "." not in name}
    names = dict.fromkeys(name.split(".")[0] for name in tensors if "." in name)
    inside = {
        name: tree({k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")})
        for name in names
    }
    return module(modules=inside, parameters=here)


def network(tensors=None, **settings):
    """A SongUNet; `settings` are what it claims to have been constructed with."""
    if tensors is None:
        tensors = SongUNet(**SETTINGS).state_dict()
    made = tree(tensors)
    made.meta["class_name"] = "SongUNet"
    made.meta["state"] |= {"_init_args": (), "_init_kwargs": {**SETTINGS, **settings}}
    return made


def snapshot(model, **others):
    settings = {"img_resolution": 8, "img_channels": 3, "sigma_data": 0.5}
    limits = {"sigma_min": 0, "sigma_max": float("inf")}
    return {**others, "ema": module("EDMPrecond", {"model": model}, **settings, **limits)}
