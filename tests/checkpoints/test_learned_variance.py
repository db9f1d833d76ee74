"""Whether a network answers with a learned variance is known once its file is read."""

import json
import pickle

import pytest
import torch
from torch import nn

import kdiff
import nvidia_pickles
from kdiff.checkpoints import native
from kdiff.networks.lucidrains_unet import LucidrainsUNet
from kdiff.networks.openai_unet import OpenAIUNet
from kdiff.networks.song_unet import SongUNet

SHAPE = (3, 8, 8)
SONG = {
    "img_resolution": 8,
    "model_channels": 8,
    "num_blocks": 1,
    "channel_mult": [1, 1],
    "in_channels": 3,
}
OPENAI = {
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_levels": (1,),
    "num_heads": 1,
}


def randomised(network):
    torch.manual_seed(0)
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim > 1:
            value.normal_(std=0.1)
    return network.eval().requires_grad_(False)


def song(channels):
    return randomised(SongUNet(**SONG, out_channels=channels))


def native_file(folder, channels):
    network = song(channels)
    model = kdiff.Denoiser(network, "eps", shape=SHAPE, learned_variance=channels == 6)
    path = folder / "m.safetensors"
    native.save(path, network.state_dict(), native.describe(model), torch.float32)
    return path, network, {}


def earlier_native_file(folder, channels):
    network = song(channels)
    described = native.describe(kdiff.Denoiser(network, "eps", shape=SHAPE))
    assert "learned_variance" not in described
    path = folder / "m.safetensors"
    native.save(path, network.state_dict(), described, torch.float32)
    return path, network, {}


def edm_pickle(folder, channels):
    network = song(channels)
    settings = {**SONG, "out_channels": channels}
    inside = nvidia_pickles.network(network.state_dict(), **settings)
    numbers = {"img_resolution": 8, "img_channels": 3, "C_1": 0.001, "C_2": 0.008, "M": 50}
    outer = nvidia_pickles.module("iDDPMPrecond", {"model": inside}, **numbers)
    path = folder / "m.pkl"
    path.write_bytes(pickle.dumps({"ema": outer}))
    return path, network, {}


def edm_tensors(folder, channels):
    network = song(channels)
    torch.save(network.state_dict(), folder / "m.pt")
    return folder / "m.pt", network, {"precond": "iddpm"}


def openai(folder, channels):
    network = randomised(OpenAIUNet(**OPENAI, in_channels=3, out_channels=channels))
    torch.save(network.state_dict(), folder / "m.pt")
    return (
        folder / "m.pt",
        network,
        {"shape": SHAPE, "num_heads": 1, "noise_schedule": "linear"},
    )


def lucidrains(folder, channels):
    network = LucidrainsUNet(
        dim=8,
        init_dim=8,
        widths=[8, 16],
        full_attention=[False, True],
        heads=[2, 2],
        head_channels=[4, 4],
        memory=4,
        out_channels=channels,
    )
    average = {f"ema_model.model.{k}": v for k, v in randomised(network).state_dict().items()}
    average["ema_model.sqrt_recipm1_alphas_cumprod"] = torch.linspace(0.01, 50.0, 100)
    torch.save({"step": 1, "ema": average, "version": "2.2.5"}, folder / "m.pt")
    return folder / "m.pt", network, {"shape": SHAPE, "prediction": "eps"}


def diffusers(folder, channels):
    network = pytest.importorskip("diffusers").UNet2DModel(
        sample_size=8,
        out_channels=channels,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    network.save_pretrained(folder / "m")
    network.eval().requires_grad_(False)
    return folder / "m", lambda x, t: network(x, t).sample, {}


class Twice(nn.Module):
    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels, 1)

    def forward(self, x, t):
        return self.conv(x) + 0 * t[:, None, None, None]


def program(folder, channels, **settings):
    network = Twice(channels).eval().requires_grad_(False)
    torch.jit.save(torch.jit.script(network), folder / "m.pt")
    said = {"prediction": "eps", "shape": SHAPE, **settings}
    (folder / "m.pt.json").write_text(json.dumps(said))
    return folder / "m.pt", network, {"trust": True}


def told_program(folder, channels):
    return program(folder, channels, learned_variance=channels == 6)


FORMATS = {
    "kdiff": native_file,
    "kdiff, earlier": earlier_native_file,
    "EDM": edm_pickle,
    "EDM's tensors": edm_tensors,
    "openai": openai,
    "lucidrains": lucidrains,
    "diffusers": diffusers,
    "program": told_program,
}


@pytest.mark.filterwarnings("ignore")  # torch deprecates TorchScript
@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("name", FORMATS)
def test_the_file_says_it(name, channels, tmp_path, monkeypatch):
    nvidia_pickles.nvidia_names(monkeypatch)
    path, network, told = FORMATS[name](tmp_path, channels)
    model = kdiff.load(path, **told)
    assert model.learned_variance is (channels == 6)
    x, sigma = torch.randn(2, *SHAPE), 2.0
    c = model.precond(sigma)
    with torch.no_grad():
        f = network(c.c_in * x, torch.full((2,), c.c_noise))
        assert f.shape[1] == channels
        expected = c.c_skip * x + c.c_out * f[:, :3]
        torch.testing.assert_close(model(x, sigma), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_program_that_does_not_say_it_is_decided_by_its_first_answer(tmp_path):
    path, *_ = program(tmp_path, 6)
    model = kdiff.load(path, trust=True)
    assert model.learned_variance is None
    model(torch.zeros(1, *SHAPE), 1.0)
    assert model.learned_variance is True
    wrong = kdiff.load(path, trust=True, learned_variance=False)
    with pytest.raises(ValueError, match="if half of that is a learned variance, say"):
        wrong(torch.zeros(1, *SHAPE), 1.0)
    path, *_ = program(tmp_path, 6, learned_variance="yes")
    with pytest.raises(ValueError, match="learned_variance must be True, False or None") as caught:
        kdiff.load(path, trust=True)
    assert str(path) in str(caught.value)


def test_a_native_file_keeps_it(tmp_path):
    path, *_ = native_file(tmp_path, 6)
    described = native.describe(kdiff.load(path))
    assert described["learned_variance"] is True
    path, *_ = native_file(tmp_path, 3)
    assert "learned_variance" not in native.describe(kdiff.load(path))


def test_it_can_be_told_of_any_file(tmp_path):
    path, *_ = native_file(tmp_path, 3)
    model = kdiff.load(path, learned_variance=True)
    with pytest.raises(ValueError, match=r"must answer with \(1, 6, 8, 8\), not \(1, 3, 8, 8\)"):
        model(torch.zeros(1, *SHAPE), 1.0)
    with pytest.raises(ValueError, match="learned_variance must be True, False or None, not 1"):
        kdiff.load(path, learned_variance=1)
