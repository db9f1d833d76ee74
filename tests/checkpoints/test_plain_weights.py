"""Files that hold just the tensors of one of kdiff's networks."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import kdiff
from kdiff.checkpoints import MissingSetting, edm_weights
from kdiff.networks import SongUNet
from kdiff.networks.dhariwal_unet import DhariwalUNet
from kdiff.networks.edm2_unet import EDM2UNet
from wrapped_weights import behind

KINDS = {
    "DDPM++": lambda: SongUNet(
        8, model_channels=8, num_blocks=1, channel_mult=[1, 2], label_dim=3, attn_resolutions=[4]
    ),
    "NCSN++": lambda: SongUNet(
        **{"img_resolution": 16, "in_channels": 1, "out_channels": 1, "augment_dim": 9},
        **{"model_channels": 8, "num_blocks": 2, "channel_mult": [1, 2, 2]},
        **{"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2},
        resample_filter=[1, 3, 3, 1],
    ),
    "ADM": lambda: DhariwalUNet(
        8, model_channels=64, num_blocks=1, channel_mult=[1, 2], label_dim=3, attn_resolutions=[4]
    ),
    "EDM2": lambda: EDM2UNet(
        8,
        4,
        model_channels=64,
        num_blocks=1,
        channel_mult=[1, 2],
        label_dim=3,
        attn_resolutions=[4],
    ),
}


def nonzero(network):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_averages_has_no_buffers(kind, path):
    network, average = nonzero(KINDS[kind]()), nonzero(KINDS[kind]())
    listed = [parameter.detach() + 1 for parameter in average.parameters()]
    torch.save({"model": network.state_dict(), "ema": {"shadow_params": listed}}, path)
    model = kdiff.load(path, precond="edm")
    assert model.facts["weights"] == "the moving average (ema)"
    assert all(map(torch.equal, model.network.parameters(), listed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "model._orig_mod.", "unet."])
def test_a_plain_file_of_one_of_kdiffs_networks(kind, prefix, tmp_path):
    network = nonzero(KINDS[kind]())
    path = tmp_path / "net.safetensors"
    save_file(behind(prefix, network.state_dict()), path)
    if kind == "EDM2":
        assert "assumed" in kdiff.load(path).facts["parameterisation"]
    else:
        with pytest.raises(MissingSetting, match="give precond= one of edm, vp"):
            kdiff.load(path)
    model = kdiff.load(path, precond="edm")
    expected = kdiff.Denoiser(network, "edm", shape=model.shape)
    x = torch.ones(2, *model.shape)
    labels = {"class_labels": torch.tensor([0, 2])} if model.classes else {}
    with torch.no_grad():
        expected.classes = model.classes
        assert torch.equal(model(x, 0.7, **labels), expected(x, 0.7, **labels))
    config = edm_weights._architecture({k: tuple(v.shape) for k, v in network.state_dict().items()})
    assert config[0] is type(network)
