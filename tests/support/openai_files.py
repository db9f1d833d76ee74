"""Small networks of OpenAI's kind, and files of them as OpenAI's scripts write them."""

import json

import torch

import places
from kdiff.networks.openai_unet import OpenAIUNet
from small_networks import fill

GOLDEN = json.loads((places.GOLDEN / "openai_unet.json").read_text())
FLAGS = {"num_heads": 2, "noise_schedule": "linear"}
SHAPE = (3, 8, 8)


def small(name="legacy", **changes):
    network = OpenAIUNet(**{**GOLDEN["small"][name]["arguments"], **changes}).eval()
    fill(network)
    return network


def saved(folder, network, change=None):
    """A file as OpenAI's scripts write it: the network's state dict, after `change`."""
    tensors = network.state_dict()
    if change is not None:
        change(tensors)
    torch.save(tensors, folder / "ema_0.9999_000100.pt")
    return folder / "ema_0.9999_000100.pt"
