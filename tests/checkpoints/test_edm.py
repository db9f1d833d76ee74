"""EDM's and EDM2's pickles. Those in golden/ were written by the original code, which also computed
the answers beside them (tools/make_edm_golden.py)."""

import pytest
import torch
from safetensors.torch import load_file

import kdiff
from kdiff.checkpoints import edm, edm2
from kdiff.networks.dhariwal_unet import DhariwalUNet
from kdiff.networks.edm2_unet import EDM2UNet
from kdiff.networks.song_unet import SongUNet
from places import GOLDEN
from small_networks import fill

SNAPSHOTS = {  # name -> the preconditioner, the network, classes
    "edm_vp": ("vp", SongUNet, 3),
    "edm_ve": ("ve", SongUNet, 0),
    "edm_edm": ("edm", SongUNet, 3),
    "edm_iddpm": ("iddpm", DhariwalUNet, 3),
    "edm_adm": ("edm", DhariwalUNet, 3),
    "edm2_latents": ("edm", EDM2UNet, 3),
    "edm2_images": ("edm", EDM2UNet, 0),
}
ADM = {  # wide enough for two heads
    "img_resolution": 4,
    "model_channels": 64,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [2],
    "label_dim": 3,
    "augment_dim": 9,
}


def adm_inputs():
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.float64).cos().reshape(2, 3, 4, 4)
    augment = torch.arange(18, dtype=torch.float64).sin().reshape(2, 9)
    return x, torch.tensor([0.3, -1.0], dtype=torch.float64), torch.tensor([1, 2]), augment


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_agrees_with_the_original_code(name):
    precond, network, classes = SNAPSHOTS[name]
    model = kdiff.load(GOLDEN / f"{name}.pkl")
    assert (model.precond.name, type(model.network)) == (precond, network)
    assert len(model.classes) == classes
    assert model.dtype == torch.float32 and not model.network.training
    golden = load_file(GOLDEN / f"{name}.safetensors")
    noise = golden.pop("noise")
    golden.pop("sampled", None)
    assert model.shape == noise.shape[1:]
    labels = {"class_labels": torch.tensor([0, classes - 1, -1])} if classes else {}
    for key, expected in golden.items():
        sigma = float(key[2:-1])
        denoised = model(sigma * noise, sigma, **labels)
        assert (denoised - expected).abs().max() < 1e-5 * expected.abs().max()


def test_adm_attention_agrees_with_the_original_code():
    network = DhariwalUNet(**ADM).eval().double()
    fill(network)
    with torch.no_grad():
        y = network(*adm_inputs())
    expected = load_file(GOLDEN / "edm_adm_attention.safetensors")["y"].double()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_sigma_ranges_and_settings_are_the_pickles():
    ve = kdiff.load(GOLDEN / "edm_ve.pkl")
    assert (ve.sigma_min, ve.sigma_max) == (0.02, 50)
    assert len(kdiff.load(GOLDEN / "edm_iddpm.pkl").sigmas) == 200
    model = kdiff.load(GOLDEN / "edm_edm.pkl")
    assert (model.sigma_min, model.sigma_max) == (0.002, 80)
    assert "sigma_data 0.6" in model.facts["parameterisation"]


def test_a_latent_models_vae_and_scaling_are_in_its_facts():
    latents = kdiff.load(GOLDEN / "edm2_latents.pkl").facts["latents"]
    assert "stabilityai/sd-vae-ft-mse" in latents and "0.119904" in latents
    assert "latents" not in kdiff.load(GOLDEN / "edm2_images.pkl").facts


def test_null_class_is_no_class():
    model = kdiff.load(GOLDEN / "edm_adm.pkl")
    x = torch.ones(2, *model.shape)
    null = model(x, 1.0, class_labels=torch.tensor([-1, -1]))
    assert torch.equal(null, model(x, 1.0))
    assert not torch.equal(null, model(x, 1.0, class_labels=torch.tensor([0, 1])))


def test_the_files_own_precision_on_request():
    path = GOLDEN / "edm2_latents.pkl"
    half = edm2.load(path, dtype=None)
    assert half.dtype == torch.float16
    noise = load_file(GOLDEN / "edm2_latents.safetensors")["noise"]
    torch.testing.assert_close(half(noise, 1.0), kdiff.load(path)(noise, 1.0), rtol=0, atol=0.02)


def test_formats_are_told_apart(tmp_path):
    assert edm.detect(GOLDEN / "edm_vp.pkl") is None
    assert edm2.detect(GOLDEN / "edm2_latents.pkl") is None
    assert "another than EDMPrecond" in edm.detect(GOLDEN / "edm2_latents.pkl")
    assert "another than Precond" in edm2.detect(GOLDEN / "edm_vp.pkl")
    assert edm.detect(tmp_path) == "not a file"
    (tmp_path / "text").write_text("no pickle")
    assert edm.detect(tmp_path / "text") == "not a pickle"


def test_heun_agrees_with_the_original_sampler():
    model = kdiff.load(GOLDEN / "edm2_latents.pkl")
    golden = load_file(GOLDEN / "edm2_latents.safetensors")
    x = 80 * golden["noise"].double()
    labels = torch.tensor([0, 2, -1])

    def denoise(x, sigma):
        return model(x.float(), sigma, class_labels=labels).double()

    plan = kdiff.plan(model, "heun", steps=6)
    *_, last = kdiff.drive(denoise, plan, x, kdiff.Noise(range(3), x.shape[1:], x.dtype))
    assert (last.x - golden["sampled"]).abs().max() < 1e-5 * golden["sampled"].abs().max()


def test_sampling_works():
    model = kdiff.load(GOLDEN / "edm_edm.pkl")
    images = kdiff.sample(model, "heun", steps=3, seeds=range(2), class_labels=[0, -1])
    assert images.shape == (2, 3, 8, 8) and images.isfinite().all()


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    kdiff.load(GOLDEN / "edm_edm.pkl")
    kdiff.load(GOLDEN / "edm2_images.pkl")
    assert torch.equal(before, torch.get_rng_state())


# The published networks: parameters and, counting buffers, tensors, as the original code has them.
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
AUGMENT = {"augment_dim": 9}
HIGH = {"channel_mult": [1, 2, 2, 2], **AUGMENT}
PUBLISHED = [
    (SongUNet, (32,), {"label_dim": 10, **AUGMENT}, 55_735_299, 427),
    (SongUNet, (32,), {"label_dim": 10, **AUGMENT, **NCSNPP}, 56_400_643, 434),
    (SongUNet, (32,), AUGMENT, 55_733_891, 425),
    (SongUNet, (64,), HIGH, 61_805_571, 553),  # FFHQ, AFHQv2
    (SongUNet, (64,), {**HIGH, **NCSNPP}, 62_761_091, 563),
    (DhariwalUNet, (64,), {"label_dim": 1000}, 295_899_267, 553),
    (EDM2UNet, (64, 4), {"label_dim": 1000, "model_channels": 128}, 124_713_125, 200),  # XS
    (EDM2UNet, (64, 4), {"label_dim": 0, "model_channels": 128}, 124_201_125, 199),
    (EDM2UNet, (64, 4), {"label_dim": 1000}, 280_212_709, 200),  # S
    (EDM2UNet, (64, 4), {"label_dim": 1000, "model_channels": 256}, 497_807_653, 200),  # M
    (EDM2UNet, (64, 4), {"label_dim": 1000, "model_channels": 320}, 777_497_957, 200),  # L
    (EDM2UNet, (64, 3), {"label_dim": 1000}, 280_209_253, 200),  # ImageNet-64, S
]


@pytest.mark.parametrize(("network", "arguments", "settings", "parameters", "tensors"), PUBLISHED)
def test_published_networks_sizes(network, arguments, settings, parameters, tensors):
    with torch.device("meta"):
        made = network(*arguments, **settings)
    assert sum(p.numel() for p in made.parameters()) == parameters
    assert len(made.state_dict()) == tensors
