"""The U-Net against the published EDM code: golden/song_unet.json holds what that code computes,
in float64, for small networks whose weights are the closed form of `fill`."""

import json

import pytest
import torch

import places
from kdiff.networks import SongUNet
from small_networks import fill

GOLDEN = places.GOLDEN / "song_unet.json"
SMALL = {
    "img_resolution": 8,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "label_dim": 10,
    "augment_dim": 9,
    "dropout": 0.1,
}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
VARIANTS = {"ddpmpp": SMALL, "ncsnpp": {**SMALL, **NCSNPP}}


def inputs():
    wave = torch.arange(2 * 3 * 8 * 8, dtype=torch.float64).cos().reshape(2, 3, 8, 8)
    augment = torch.arange(18, dtype=torch.float64).sin().reshape(2, 9)
    return wave, torch.tensor([0.3, -1.0], dtype=torch.float64), torch.tensor([3, 7]), augment


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_published_code(variant):
    golden = json.loads(GOLDEN.read_text())["outputs"][variant]
    network = SongUNet(**VARIANTS[variant]).eval().double()
    fill(network)
    assert sorted(network.state_dict()) == golden["names"]
    x, c_noise, labels, augment = inputs()
    with torch.no_grad():
        y = network(x, c_noise, labels, augment)
    expected = torch.tensor(golden["values"], dtype=torch.float64)
    # The published embedding works in float32, as does ours.
    torch.testing.assert_close(y.flatten()[::7], expected, rtol=1e-6, atol=1e-6)


# The sizes that the EDM paper's CIFAR-10 checkpoints have (Karras et al. 2022, table 7: 56 M).
@pytest.mark.parametrize(("settings", "millions"), [({}, 55.735299), (NCSNPP, 56.400643)])
def test_parameter_counts_of_the_published_cifar10_networks(settings, millions):
    with torch.device("meta"):
        network = SongUNet(32, label_dim=10, augment_dim=9, **settings)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-9)


def test_null_class_is_no_label_and_one_hot_rows_are_labels():
    network = SongUNet(**SMALL).eval().double()
    fill(network)
    x, c_noise, labels, _ = inputs()
    with torch.no_grad():
        null = network(x, c_noise, torch.tensor([-1, -1]))
        assert torch.equal(null, network(x, c_noise))
        given = network(x, c_noise, labels)
        assert torch.equal(given, network(x, c_noise, torch.eye(10).double()[labels]))
    assert not torch.allclose(null, given)


def test_label_dropout_trains_the_null_class():
    network = SongUNet(**{**SMALL, "label_dropout": 1.0, "dropout": 0.0}).train().double()
    fill(network)
    x, c_noise, labels, _ = inputs()
    assert torch.equal(network(x, c_noise, labels), network(x, c_noise))
