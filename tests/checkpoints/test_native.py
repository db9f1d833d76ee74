"""kdiff's own format: what it keeps of a network, and in which dtype."""

import zipfile

import pytest
import torch
from torch import nn

import kdiff
from kdiff.checkpoints import native, torch_zip
from kdiff.checkpoints.weights import load_weights
from kdiff.networks import NETWORKS, SongUNet, at_most
from kdiff.networks.song_unet import FourierEmbedding
from tiny_model import TINY, x


def test_a_network_remembers_what_made_it():
    network = SongUNet(8, 3, model_channels=8, num_blocks=1)
    assert network.config == {
        "name": "song_unet",
        "img_resolution": 8,
        "in_channels": 3,
        "model_channels": 8,
        "num_blocks": 1,
    }
    assert NETWORKS["song_unet"] is SongUNet

    class Other(SongUNet):
        def __init__(self):
            super().__init__(8, model_channels=8, num_blocks=1)

    assert not hasattr(Other(), "config")  # the network could not be built again from it


def test_loading_keeps_the_dtype_only_if_asked_to(tmp_path, tiny):
    model = kdiff.load(tiny)
    half = tmp_path / "half.safetensors"
    native.save(half, model.network.state_dict(), native.describe(model), torch.float16)
    assert kdiff.load(half).dtype == torch.float32
    kept = kdiff.load(half, dtype=None)
    assert {p.dtype for p in kept.network.parameters()} == {torch.float16}
    torch.testing.assert_close(kept(x(), 1.0), model(x(), 1.0), rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frequencies_are_not_made_narrower(dtype, tmp_path):
    """A hundred turns, rounded to eight bits, are off by as much as half a turn."""
    embedding = FourierEmbedding(16, scale=100)
    angles = embedding(torch.tensor([1.0]))
    assert torch.equal(embedding.to(dtype)(torch.tensor([1.0])), angles)
    assert embedding.double().freqs.dtype == torch.float64
    wide = kdiff.Denoiser(SongUNet(**TINY, embedding_type="fourier"), "ve", shape=(3, 8, 8))
    path = tmp_path / "fourier.safetensors"
    native.save(path, wide.network.state_dict(), native.describe(wide), torch.float32)
    narrow = kdiff.load(path, dtype=dtype).network
    assert narrow.map_layer0.weight.dtype == dtype
    assert torch.equal(narrow.map_noise.freqs, wide.network.map_noise.freqs)


def test_complex_weights_are_refused():
    layer = nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match="weight has complex numbers"):
        load_weights(layer, [("weight", torch.zeros(2, 2, dtype=torch.complex64))], None)


def test_weights_of_two_types_become_the_wider_one():
    layer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tensors = {key: value.detach().half() for key, value in layer.state_dict().items()}
    tensors["1.weight"] = tensors["1.weight"].bfloat16()
    load_weights(layer, tensors.items(), None)
    assert {p.dtype for p in layer.parameters()} == {torch.float32}  # no value is rounded


def test_frequencies_are_not_rounded_to_half_precision(tmp_path):
    network = SongUNet(**TINY, embedding_type="fourier")
    model = kdiff.Denoiser(network, "ve", shape=(3, 8, 8))
    path = tmp_path / "m.safetensors"
    native.save(path, network.state_dict(), native.describe(model))
    assert torch.equal(kdiff.load(path).network.map_noise.freqs, network.map_noise.freqs)


def test_loading_touches_no_global_generator(tiny):
    before = torch.get_rng_state()
    kdiff.load(tiny)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_built_again_cannot_be_described():
    with pytest.raises(ValueError, match="its network, Linear, is not one"):
        native.describe(kdiff.Denoiser(nn.Linear(2, 2), "edm", shape=(2,)))
    own = kdiff.Precond("mine", lambda s: (0.0, 1.0, 1.0), lambda s: s, 0.1, 1.0)
    with pytest.raises(ValueError, match="preconditioner is not one"):
        native.describe(kdiff.Denoiser(SongUNet(**TINY), own, shape=(3, 8, 8)))


def test_a_network_may_not_have_more_tensors_than_its_file():
    with at_most(2):
        nn.Linear(2, 2)
    with pytest.raises(ValueError, match="more tensors than the file"), at_most(2):
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    nn.Linear(2, 2)


def test_a_torch_file_may_be_packed_again_but_has_one_directory(tmp_path):
    saved, packed = tmp_path / "saved.pt", tmp_path / "packed.pt"
    torch.save({"w": torch.arange(5.0)}, saved)
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(packed, "w") as again:
        for name in archive.namelist():
            again.writestr(name, archive.read(name))
    for path in (saved, packed):
        assert torch_zip.read(path)["w"].tolist() == [0, 1, 2, 3, 4]
        whole = path.read_bytes()
        for content in (whole + b"\0", whole[:-2] + b"\1\0x", whole[:4] + whole):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"before or behind it|File is not a zip file"):
                torch_zip.read(path)


def test_a_file_with_an_unknown_network_suggests_the_nearest(tiny):
    config = {**native.describe(kdiff.load(tiny)), "network": {"name": "song_unt"}}
    native.save(tiny, kdiff.load(tiny).network.state_dict(), config)
    with pytest.raises(ValueError, match="unknown network 'song_unt'; did you mean song_unet"):
        kdiff.load(tiny)
