"""lucidrains' checkpoints against the library itself: it builds, saves, computes and samples. One
file that it saved is kept, with what it computed: golden/lucidrains.pt.gz and .json, made by
tools/make_lucidrains_golden.py."""

import gzip
import json

import pytest
import torch
from denoising_diffusion_pytorch import GaussianDiffusion, LearnedGaussianDiffusion, Trainer, Unet

import kdiff
from kdiff.checkpoints import lucidrains, native
from places import GOLDEN

SHAPE = (3, 8, 8)
SMALL = {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 4}
PREDICTIONS = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}


@pytest.fixture(autouse=True)
def own_random_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def saved(folder, *, kind=GaussianDiffusion, network=(), **settings):
    """A file of the library's own Trainer, and its moving average."""
    unet = Unet(**{**SMALL, **dict(network)})
    diffusion = kind(unet, image_size=8, **{"timesteps": 50, **settings})
    for i in range(100):  # the Trainer counts them, and opens none before it trains
        (folder / f"{i}.png").touch()
    trainer = Trainer(
        diffusion, str(folder), num_samples=1, calculate_fid=False, results_folder=str(folder)
    )
    with torch.no_grad():
        for parameter in trainer.ema.ema_model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # unlike the online model
    trainer.save(1)
    return folder / "model-1.pt", trainer.ema.ema_model.eval()


VARIANTS = {
    "default": {},
    "deeper": {"dim_mults": (1, 2, 3), "init_dim": 12},
    "attention": {"full_attn": (True, False), "attn_heads": (1, 3), "attn_dim_head": (4, 8)},
    "full": {"full_attn": (True, True)},
    "grey": {"channels": 1},
    "self-conditioned": {"self_condition": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_is_that_of_the_library(variant, tmp_path):
    path, theirs = saved(tmp_path, network=VARIANTS[variant])
    model = kdiff.load(path, shape=(theirs.channels, 8, 8))
    x = torch.randn(2, theirs.channels, 8, 8)
    t = torch.tensor([0.0, 37.0])
    with torch.no_grad():
        torch.testing.assert_close(model.network(x, t), theirs.model(x, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("objective", PREDICTIONS)
def test_sampling_is_that_of_the_library(objective, schedule, tmp_path, run, monkeypatch):
    path, theirs = saved(
        tmp_path, objective=objective, beta_schedule=schedule, sampling_timesteps=7
    )
    # In float64: with eps, x0 is a difference of numbers of sigma's size, here up to 1015.
    model = kdiff.load(path, shape=SHAPE).to(dtype=torch.float64)
    theirs.double().model.time_mlp[0].register_forward_hook(lambda _, __, out: out.double())
    start = torch.randn(2, *SHAPE, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn", lambda shape, device: start)
    expected = theirs.ddim_sample((2, *SHAPE))

    def clipped(x, sigma):  # the library clips each estimate of the clean image
        return model(x, sigma).clamp(-1, 1)

    times = torch.linspace(-1, 49, 8).int().flip(0)[:-1].tolist()
    sigmas = [model.sigmas[t] for t in times]
    found = run(clipped, "ddim", [*sigmas, 0.0], start * (1 + sigmas[0] ** 2) ** 0.5)
    # What remains is the float32 of the library's tables.
    torch.testing.assert_close((found + 1) / 2, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("objective", PREDICTIONS)
def test_objective_is_read_from_clipped_loss_weights_too(objective, schedule, tmp_path):
    path, theirs = saved(
        tmp_path, objective=objective, beta_schedule=schedule, min_snr_loss_weight=True
    )
    model = kdiff.load(path, shape=SHAPE)
    assert model.precond.name == PREDICTIONS[objective]
    assert "loss weights" in model.facts["parameterisation"]
    expected = (1 / theirs.alphas_cumprod.double() - 1).sqrt().tolist()
    assert model.sigmas == pytest.approx(expected, rel=1e-3)  # float32 near 1


@pytest.mark.parametrize("objective", PREDICTIONS)
def test_20_linear_steps_end_at_zero_snr(objective, tmp_path):
    """Their linear betas are made for 1000 steps. With 20 steps the last one is 1."""
    path, theirs = saved(tmp_path, objective=objective, beta_schedule="linear", timesteps=20)
    assert theirs.alphas_cumprod[-1] == 0
    model = kdiff.load(path, shape=SHAPE)
    assert model.precond.name == PREDICTIONS[objective]
    assert model.sigmas[-1] == pytest.approx(2 * model.sigmas[-2]) and model.sigmas[-2] > 4096


def test_learned_variance_predicts_noise_and_is_dropped(tmp_path):
    path, theirs = saved(
        tmp_path,
        kind=LearnedGaussianDiffusion,
        network={"learned_variance": True},
        objective="pred_noise",
    )
    model = kdiff.load(path, shape=SHAPE)
    x, t = torch.randn(2, *SHAPE), torch.tensor([20, 20])
    with torch.no_grad():
        *_, expected = theirs.p_mean_variance(x=x, t=t, clip_denoised=False)
        found = model(x * (1 + model.sigmas[20] ** 2) ** 0.5, model.sigmas[20])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert model.precond.name == "eps"


@pytest.fixture
def golden(tmp_path):
    path = tmp_path / "golden.pt"
    path.write_bytes(gzip.decompress((GOLDEN / "lucidrains.pt.gz").read_bytes()))
    return path


def test_golden_file_of_the_library(golden):
    model = kdiff.load(golden, shape=SHAPE)
    values = json.loads((GOLDEN / "lucidrains.json").read_text())
    x = torch.arange(192, dtype=torch.float32).cos().reshape(1, *SHAPE)
    with torch.no_grad():
        y = model.network(x, torch.tensor([17.0]))
    torch.testing.assert_close(y.flatten(), torch.tensor(values["output"]), rtol=1e-5, atol=1e-5)
    assert model.precond.name == "v"
    assert model.sigma_min == pytest.approx(values["sigma_min"])
    assert model.sigma_max == pytest.approx(values["sigma_max"])
    assert model.facts["weights"] == "the moving average (ema)"


def test_golden_file_samples_and_leaves_the_global_generator_alone(golden):
    before = torch.get_rng_state()
    images = kdiff.sample(kdiff.load(golden, shape=SHAPE), "dpmpp_2m", steps=4, n=2)
    assert images.shape == (2, *SHAPE)
    assert torch.equal(torch.get_rng_state(), before)


def test_converts_to_kdiffs_own_format(golden, tmp_path):
    model = kdiff.load(golden, shape=SHAPE)
    native.save(
        tmp_path / "own.safetensors",
        model.network.state_dict(),
        native.describe(model),
        torch.float32,
    )
    own = kdiff.load(tmp_path / "own.safetensors")
    x = torch.ones(1, *SHAPE)
    with torch.no_grad():
        assert torch.equal(own(x, 2.0), model(x, 2.0))


def changed(golden, change):
    """The golden file with its dict changed, saved again."""
    data = torch.load(golden, weights_only=True)
    change(data)
    torch.save(data, golden)
    return golden


def test_says_what_is_not_in_the_file(golden):
    with pytest.raises(ValueError, match=r"image size: give shape=\(3, height, width\)"):
        kdiff.load(golden)
    with pytest.raises(ValueError, match="multiples of 2"):
        kdiff.load(golden, shape=(3, 9, 8))
    path = changed(golden, lambda data: data["ema"].pop("ema_model.loss_weight"))
    with pytest.raises(ValueError, match="give prediction= one of eps, x0, v"):
        kdiff.load(path, shape=SHAPE)
    with pytest.raises(ValueError, match="give prediction= one of eps, x0, v"):
        kdiff.load(path, shape=SHAPE, prediction="score")
    assert kdiff.load(path, shape=SHAPE, prediction="x0").precond.name == "x0"


def first_version(data):
    data["version"] = "1.8.0"
    norm = "ema_model.model.downs.0.0.block1.norm"
    data["ema"][f"{norm}.weight"] = data["ema"].pop(f"{norm}.g")


def continuous(data):
    del data["ema"]["ema_model.sqrt_recipm1_alphas_cumprod"]


def incomplete(data):
    del data["ema"]["ema_model.model.mid_block1.mlp.1.bias"]


def without_a_level(data):
    del data["ema"]["ema_model.model.downs.0.2.mem_kv"]


def of_four_bytes(data):
    huge = torch.zeros(1).expand(10**9, 8, 1, 1)
    data["ema"]["ema_model.model.final_conv.weight"] = huge


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (first_version, r"not of denoising-diffusion-pytorch 2.x \(it says 1.8.0\)"),
        (without_a_level, "attention without memory"),
        (continuous, "only GaussianDiffusion and LearnedGaussianDiffusion"),
        (incomplete, "do not fit: .*mid_block1.mlp.1.bias"),
        (of_four_bytes, "channels in, 1000000000 out"),
    ],
)
def test_variants_that_are_refused(change, says, golden):
    with pytest.raises(ValueError, match=says) as caught:
        kdiff.load(changed(golden, change), shape=SHAPE)
    assert "\n" not in str(caught.value)


def test_detect_says_what_is_missing(golden, tmp_path):
    assert lucidrains.detect(golden) is None
    other = tmp_path / "other.pt"
    torch.save({"ema": {"weight": torch.zeros(2)}}, other)
    assert lucidrains.detect(other) == "no init_conv.weight"
    torch.save([1, 2], other)
    assert lucidrains.detect(other) == "no init_conv.weight"
    other.write_bytes(b"nothing of the kind")
    assert "not a zip archive" in lucidrains.detect(other)
    other.write_bytes(golden.read_bytes()[:5000])
    assert "not a torch.save file" in lucidrains.detect(other)
