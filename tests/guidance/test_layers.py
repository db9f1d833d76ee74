"""Which layers a name means."""

import pytest
import torch
from torch import nn

import kdiff
from attending_networks import KINDS, attending
from diffusers_networks import make_condition, make_dit, make_sd3, make_unet
from kdiff.guidance.layers import find_layers
from kdiff.names import UnknownName
from kdiff.networks.diffusers_models import ADAPTERS


def names(network, said, **keywords):
    """The paths of what is found."""
    paths = {id(module): name for name, module in network.named_modules()}
    found = find_layers(network, said, **keywords)
    return [paths[id(m)] for modules in found.values() for m in modules]


MIDDLES = {
    "song_unet": ["dec.4x4_in0"],
    "dhariwal_unet": ["dec.4x4_in0"],
    "edm2_unet": ["dec.4x4_in0"],
    "openai_unet": ["middle_block"],
    "k_diffusion_v1": ["u_net.u_blocks.0.0", "u_net.u_blocks.0.1"],
    "k_diffusion_v2": ["mid_level"],
    "lucidrains_unet": ["mid_attn"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_usual_layers_are_the_middle_of_a_u_net(kind):
    assert names(attending(kind), "auto") == MIDDLES[kind]


def test_those_of_the_packaged_models():
    assert names(kdiff.load("cifar10").network, "auto") == ["dec.8x8_in0"]
    mnist = kdiff.load("mnist").network
    assert names(mnist, "auto") == ["dec.7x7_in0"]
    at_7x7 = ["enc.7x7_down", "enc.7x7_block0", "dec.7x7_in0", "dec.7x7_in1"]
    at_7x7 += ["dec.7x7_block0", "dec.7x7_block1"]
    assert names(mnist, "auto", attention=True) == at_7x7


@pytest.mark.parametrize("make", [make_unet, make_condition])
def test_those_of_diffusers_u_nets_through_the_adapter_of_kdiff(make):
    network = make()
    assert names(ADAPTERS[type(network).__name__](network), "auto") == ["model.mid_block"]


def test_those_of_transformers_are_7_8_and_9_or_the_one_in_the_middle():
    network = nn.Module()
    network.transformer_blocks = nn.ModuleList(nn.Identity() for _ in range(24))
    network.norm = nn.Identity()
    assert list(find_layers(network, "auto")) == ["7", "8", "9"]
    assert names(make_dit(), "auto") == names(make_sd3(), "auto") == ["transformer_blocks.1"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("0", ["transformer_blocks.0"]),
        (" 1 + 0", ["transformer_blocks.1", "transformer_blocks.0"]),
        ("*attn*", ["transformer_blocks.0.attn1", "transformer_blocks.1.attn1"]),  # no parts of it
        ("transformer_blocks.?", ["transformer_blocks.0", "transformer_blocks.1"]),
        ("transformer_blocks", ["transformer_blocks.0", "transformer_blocks.1"]),  # only a list
        ("transformer_blocks.1.attn1", ["transformer_blocks.1.attn1"]),
    ],
)
def test_names_wildcards_and_numbers(said, expected):
    assert names(make_dit(), said) == expected
    around = kdiff.wrap(torch.compile(make_dit()), shape=(4, 8, 8)).network
    assert [name.removeprefix("f._orig_mod.") for name in names(around, said)] == expected


def test_a_network_with_one_part_and_weights_of_its_own_is_no_adapter():
    network = Around(make_dit())
    network.register_parameter("gain", nn.Parameter(torch.ones(3)))
    with pytest.raises(ValueError, match="names, not numbers such as 1; there is f"):
        find_layers(Around(network), "1")
    assert names(network, "f.transformer_blocks.1") == ["f.transformer_blocks.1"]


class Around(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("transformer_block.1", "no layer 'transformer_block.1'; there is transformer_blocks.1"),
        ("qqqqqqqqqq", "no layer 'qqqqqqqqqq'; there is pos_embed, transformer_blocks, norm_out"),
        ("", "no layer ''; there is"),
        ("0+", "no layer ''; there is"),
        ("2", "no layer 2; there is 0 to 1"),
    ],
)
def test_what_is_not_there_gets_one_line_with_what_is(said, message):
    with pytest.raises(ValueError, match=message) as error:
        find_layers(make_dit(), said)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_u_net_has_no_numbers_and_an_unknown_network_no_usual_layers():
    with pytest.raises(ValueError, match="names, not numbers such as 7; there is map_noise, map_"):
        find_layers(attending("song_unet"), "7")
    with pytest.raises(ValueError, match=r"say which layers: layers=first\+second, say"):
        find_layers(nn.Sequential(dict_of("first", "second")), "auto")
    with pytest.raises(UnknownName):
        find_layers(nn.Sequential(dict_of("first", "second")), "third")


def dict_of(*names):
    from collections import OrderedDict

    return OrderedDict((name, nn.Identity()) for name in names)
