"""A small network and its moving average, and parts of the wrappers around them."""

import torch
from torch import nn

from kdiff.networks.openai_unet import OpenAIUNet

SHAPE = (3, 8, 8)
FLAGS = {"shape": SHAPE, "num_heads": 2, "noise_schedule": "linear"}


def make(seed=0):
    """A network with OpenAI's names, all of whose weights differ from those of another seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = OpenAIUNet(32, (1, 2), 1, (1,), num_heads=2)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


NET, EMA = make(0), make(1)
RAW, AVERAGE = NET.state_dict(), EMA.state_dict()


def behind(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


def torch_ema(tensors):
    return {"decay": 0.999, "num_updates": 3, "shadow_params": list(tensors.values())}


def is_network(model, network):
    ours, theirs = model.network.state_dict(), network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
