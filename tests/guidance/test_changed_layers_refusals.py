"""What guidance by changed layers refuses, and what reaches the changed network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdiff
from attending_networks import X, attending, model_of
from kdiff.conditions import Shared
from kdiff.guidance import guide, pag, seg, slg

every_guidance = pytest.mark.parametrize("guided", [slg, pag, seg])


@every_guidance
def test_a_model_without_a_network_of_pytorchs_is_refused(guided):
    with pytest.raises(ValueError, match="unnamed has no network of PyTorch's whose layers"):
        guided(lambda x, sigma: x)
    with pytest.raises(ValueError, match="the network has no layers that could be changed"):
        guided(kdiff.wrap(lambda x, t: x, shape=(3, 8, 8)))


@pytest.mark.parametrize(
    ("kind", "what", "message"),
    [
        (
            "song_unet",
            "slg:layers=dec.8x8_up",
            r"dec.8x8_up cannot be skipped: it makes \(2, 32, 8",
        ),
        (
            "song_unet",
            "slg:layers=dec.8x8_up.skip.*",
            "the network has no layer 'dec.8x8_up.skip.*'",
        ),
        (
            "song_unet",
            "pag:layers=dec.4x4_in1",
            "no self-attention of PyTorch's is in the layer dec",
        ),
        ("song_unet", "pag:layers=dec.4x4_in0+map_*", r"self-attention .* in the layer map_\*"),
        ("lucidrains_unet", "seg:layers=downs.0", "no self-attention"),
        ("song_unet", "slg:layers=unused", "does not call the layer unused"),
        ("song_unet", "slg:layers=7", "names, not numbers such as 7"),
        ("song_unet", "seg:low=2:high=1", "changed layers need low <= high, not 2 and 1"),
        ("song_unet", "seg:blur=0", "blur must be a number, at least 0.01"),
    ],
)
def test_one_line_says_why_layers_are_wrong(kind, what, message):
    network = attending(kind)
    network.unused = nn.Identity()
    with pytest.raises(ValueError, match=message) as error:
        guide(model_of(network), what)(X, 2.0)
    assert "\n" not in str(error.value)


def test_seg_needs_a_grid():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.mid_block = Attending()
            self.out = nn.Identity()

        def forward(self, x, c_noise):
            return self.out(self.mid_block(x))

    model = kdiff.Denoiser(Sequence(), "edm", shape=(5, 4))
    x = X[:, 0, :5, :4]
    assert pag(model)(x, 1.0).isfinite().all()
    with pytest.raises(ValueError, match="seg cannot tell how 5 tokens lie in samples of 4: use"):
        seg(model)(x, 1.0)


class Attending(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def test_conditions_reach_the_changed_network():
    seen = []

    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.mid_block, self.out = Attending(), nn.Identity()

        def forward(self, x, c_noise, class_labels, prompts, lift):
            seen.append((class_labels.tolist(), prompts, lift))
            return self.out(self.mid_block(x)) + lift

    model = kdiff.Denoiser(Told(), "edm", shape=(3, 8, 8), classes="abc")
    cond = {"class_labels": torch.tensor([2, 0]), "prompts": ["p", "q"], "lift": Shared(0.5)}
    pag(model)(X, 1.0, **cond, negative_prompts=["n", "n"])
    assert seen == [([2, 0], ["p", "q"], 0.5)] * 2
