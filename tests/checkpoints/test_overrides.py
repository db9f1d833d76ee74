"""Keywords say what a file lacks: each is given to a file that is refused without it."""

import gzip
import json
import pickle

import diffusers
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

import kdiff
import nvidia_pickles as nvidia
from kdiff.checkpoints import MissingSetting, native
from kdiff.cli import main
from kdiff.networks import SongUNet
from kdiff.networks.openai_unet import OpenAIUNet
from places import GOLDEN

pytestmark = pytest.mark.filterwarnings("ignore")
SHAPE = (3, 8, 8)
UNET = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}
CONDITION = {
    **UNET,
    "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 12,
}


def x(shape=SHAPE):
    return torch.linspace(-1, 1, 2 * torch.Size(shape).numel()).reshape(2, *shape)


def unet(folder, scheduler=None, size=8):
    """A diffusers folder of a network, with a scheduler's configuration if one is given."""
    torch.manual_seed(0)
    diffusers.UNet2DModel(sample_size=size, **UNET).save_pretrained(folder)
    if scheduler is not None:
        (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


# --- diffusers ---


def test_a_network_without_a_size(tmp_path):
    folder = unet(tmp_path, size=None)
    with pytest.raises(MissingSetting, match=r"no sample_size: give shape=\(3, height, width\)$"):
        kdiff.load(folder)
    assert kdiff.load(folder, shape=SHAPE).shape == SHAPE
    with pytest.raises(ValueError, match=r"shape must be \(3, height, width\)"):
        kdiff.load(folder, shape=(1, 8, 8))
    assert kdiff.sample(kdiff.load(folder, shape=(3, 8, 16)), steps=1).shape == (1, 3, 8, 16)


def test_the_command_line_says_the_size_too(tmp_path):
    folder = unet(tmp_path / "net", size=None)
    arguments = ["sample", "--model", folder, "--num", 1, "--steps", 1, "--out", tmp_path / "out"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 2 and "as --set KEY=VALUE" in result.stderr
    result = CliRunner().invoke(main, [*map(str, arguments), "--set", "shape=3,8,8"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model_settings"] == ["shape=3,8,8"]


EDM = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, "prediction_type": "epsilon"}


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        ({"_class_name": "EDMEulerScheduler", **EDM}, "probably precond=edm"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler", **EDM}, "probably precond=edm"),
        ({"_class_name": "OfAnotherLibrary"}, "OfAnotherLibrary .*give precond= one of edm"),
        ({"_class_name": "ScoreSdeVeScheduler", "snr": 0.15}, "give precond= one of edm"),
        ({"beta_schedule": "linear", "timestep_type": "continuous"}, "give precond="),
        ({"beta_schedule": "of another library"}, "give precond="),
        ({"beta_schedule": "linear", "num_train_timesteps": "many"}, "give precond="),
    ],
)
def test_a_scheduler_that_is_not_supported(scheduler, says, tmp_path):
    folder = unet(tmp_path, scheduler)
    with pytest.raises(MissingSetting, match=says) as caught:
        kdiff.load(folder)
    assert "\n" not in str(caught.value)
    model = kdiff.load(folder, precond="edm")
    assert (model.sigma_min, model.sigma_max) == (0.002, 80.0)
    assert model.facts["parameterisation"] == "as told to kdiff.load"
    expected = kdiff.Denoiser(model.network, "edm", shape=SHAPE)
    with torch.no_grad():
        assert torch.equal(model(x(), 2.0), expected(x(), 2.0))


def test_a_folder_has_no_weights_to_choose_from(tmp_path):
    with pytest.raises(ValueError, match="diffusers model has just one network: leave out weights"):
        kdiff.load(unet(tmp_path), weights="ema")


def test_no_scheduler_and_a_preconditioner(tmp_path):
    model = kdiff.load(unet(tmp_path), precond={"name": "flow", "data_at": 1})
    assert model.precond.name == "flow" and model.precond(3.0).c_noise == pytest.approx(0.25)


def test_a_prediction_that_is_not_known(tmp_path):
    folder = unet(tmp_path, {"beta_schedule": "linear", "prediction_type": "score"})
    with pytest.raises(MissingSetting, match="give prediction= one of eps, v, x0"):
        kdiff.load(folder)
    model = kdiff.load(folder, prediction="v")
    assert model.precond.name == "v" and len(model.sigmas) == 1000
    with pytest.raises(ValueError, match="prediction must be one of eps, v, x0"):
        kdiff.load(folder, prediction="flow")
    with pytest.raises(ValueError, match="give precond or prediction, not both"):
        kdiff.load(folder, prediction="v", precond="edm")


def test_a_shift_that_depends_on_the_size(tmp_path):
    folder = unet(tmp_path, {"shift": 1.0, "use_dynamic_shifting": True})
    with pytest.raises(MissingSetting, match=r"give shift=3\.0, or whichever it was, or precond"):
        kdiff.load(folder)
    model = kdiff.load(folder, shift=3.0)
    assert model.sigmas[499] == pytest.approx(3.0)  # 3 t / (1 - t) at t = 0.5


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "unet."])
def test_weights_that_were_saved_in_a_wrapper(prefix, suffix, tmp_path):
    """torch.compile or accelerate prefix the names when nobody unwraps the network."""
    expected = kdiff.load(unet(tmp_path)).network.model.state_dict()
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    renamed = {prefix + key: value.contiguous() for key, value in expected.items()}
    save_file(renamed, file)
    if suffix == "bin":
        file.unlink()
        torch.save(renamed, file.with_suffix(".bin"))
    found = kdiff.load(tmp_path).network.model
    assert all(torch.equal(value, expected[key]) for key, value in found.state_dict().items())
    assert not found.training and not next(found.parameters()).requires_grad


# --- what is assumed of a folder without a scheduler ---


def test_stable_diffusions_network_has_its_betas(tmp_path):
    diffusers.UNet2DConditionModel(**CONDITION).save_pretrained(tmp_path)
    model = kdiff.load(tmp_path)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    a = (1 - betas).cumprod(0)
    ends = [((1 - a[t]) / a[t]).sqrt().item() for t in (0, -1)]
    assert (model.sigma_min, model.sigma_max) == pytest.approx(ends, rel=1e-4)
    assert (model.sigma_min, model.sigma_max) == pytest.approx((0.029, 14.6), rel=0.01)
    for fact in ("parameterisation", "noise schedule"):
        assert "assumed, as in Stable Diffusion: there is no scheduler" in model.facts[fact]
    assert "scaled_linear" in model.facts["noise schedule"]
    assert "0.18215 z" in model.facts["latents"]
    result = CliRunner().invoke(main, ["inspect", str(tmp_path), "--no-health"])
    assert "1000 timesteps, scaled_linear betas, assumed, as in Stable Diffusion" in result.output


def test_other_networks_have_ddpms(tmp_path):
    model = kdiff.load(unet(tmp_path))
    assert model.sigma_max == pytest.approx(157.4, rel=0.01)
    assert "eps, assumed, as in DDPM" in model.facts["parameterisation"]
    assert "latents" not in model.facts


# --- state dicts ---


def openai(path):
    network = OpenAIUNet(32, (1, 2), 1, (1,), num_heads=2)
    torch.save({"net_model": network.state_dict()}, path)
    return path, network


def test_networks_of_openai_that_others_trained(tmp_path):
    path, network = openai(tmp_path / "otcfm_cifar10_weights_step_400000.pt")
    with pytest.raises(MissingSetting, match=r"num_heads or num_head_channels, and noise_schedule"):
        kdiff.load(path, shape=SHAPE)
    model = kdiff.load(path, shape=SHAPE, num_heads=2, precond={"name": "flow", "data_at": 1})
    assert model.precond.name == "flow" and model.sigmas is None
    expected = kdiff.wrap(network.eval(), "flow", data_at=1, shape=SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(model(x(), 1.0), expected(x(), 1.0), rtol=1e-5, atol=1e-5)


def test_lucidrains_network_without_its_diffusion(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(gzip.decompress((GOLDEN / "lucidrains.pt.gz").read_bytes()))
    whole = kdiff.load(path, shape=SHAPE)
    prefix = "ema_model.model."
    saved = torch.load(path, weights_only=True)["ema"]
    bare = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
    torch.save({"model_state_dict": bare}, path)
    with pytest.raises(MissingSetting, match=r"no noise schedule .*give precond"):
        kdiff.load(path, shape=SHAPE)
    model = kdiff.load(path, shape=SHAPE, precond=whole.precond)
    with torch.no_grad():
        assert torch.equal(model(x(), 1.0), whole(x(), 1.0))


def test_k_diffusions_config_by_keyword(tmp_path):
    text = gzip.decompress((GOLDEN / "k_diffusion_networks.json.gz").read_bytes())
    golden = json.loads(text)["networks"]["image_v1"]
    tensors = {key: torch.ones(shape) for key, shape, _ in golden["state"]}
    path = tmp_path / "net.safetensors"
    save_file({f"module.{key}": value for key, value in tensors.items()}, path)
    with pytest.raises(MissingSetting, match=r"no k-diffusion config .*give config="):
        kdiff.load(path)
    (tmp_path / "train.json").write_text(json.dumps(golden["config"]))
    for config in (golden["config"], str(tmp_path / "train.json")):
        assert kdiff.load(path, config=config).shape == (3, 8, 8)
    lacking = {**golden["config"]["model"]}
    del lacking["input_size"]
    with pytest.raises(ValueError, match="not complete: 'input_size'"):
        kdiff.load(path, config={"model": lacking})
    assert kdiff.load(path, config={"model": lacking}, shape=(3, 8, 16)).shape == (3, 8, 16)
    wrong = {"model": {**golden["config"]["model"], "sigma_max": None}}
    assert kdiff.load(path, config=wrong, sigma_max=50.0).sigma_max == 50


def test_kdiffs_own_file_without_precond_or_shape(tmp_path):
    network = SongUNet(8, model_channels=8, num_blocks=1, channel_mult=[1, 2])
    path = tmp_path / "own.safetensors"
    for lacking, told in ({"precond"}, {"precond": "ve"}), ({"shape"}, {"shape": SHAPE}):
        config = native.describe(kdiff.Denoiser(network, "ve", shape=SHAPE))
        config = {key: value for key, value in config.items() if key not in lacking}
        native.save(path, network.state_dict(), config)
        with pytest.raises(MissingSetting, match=f"no {lacking.copy().pop()}: give it"):
            kdiff.load(path)
        model = kdiff.load(path, **told)
        assert model.precond.name == "ve" and model.shape == SHAPE


def test_a_pickle_with_a_preconditioner_of_somebodys_own(tmp_path, monkeypatch):
    nvidia.nvidia_names(monkeypatch)
    path = tmp_path / "network-snapshot-000100.pkl"
    made = nvidia.snapshot(nvidia.network())
    made["ema"].meta["class_name"] = "MyPrecond"
    path.write_bytes(pickle.dumps(made))
    with pytest.raises(MissingSetting, match="MyPrecond, is not one of EDM's: give precond="):
        kdiff.load(path)
    assert kdiff.load(path, precond="vp").precond.name == "vp"


# --- programs ---


class Net(nn.Module):
    def forward(self, x, t):
        return x * t[:, None, None, None].cos()


def test_a_program_without_a_settings_file(tmp_path, monkeypatch):
    monkeypatch.setenv("KDIFF_TRUST", "1")
    path = tmp_path / "net.pt"
    torch.jit.script(Net()).save(path)
    with pytest.raises(MissingSetting, match="or give them as keywords"):
        kdiff.load(path)
    told = {"prediction": "eps", "shape": SHAPE, "alphas_cumprod": "cosine", "steps": 100}
    model, expected = kdiff.load(path, **told), kdiff.wrap(Net(), **told)
    assert torch.equal(model(x(), 2.0), expected(x(), 2.0))
    model = kdiff.load(path, shape=SHAPE, precond="edm")
    expected = kdiff.Denoiser(Net(), "edm", shape=SHAPE)
    assert torch.equal(model(x(), 2.0), expected(x(), 2.0))
    path.with_name("net.pt.json").write_text(json.dumps({"shape": SHAPE}))
    with pytest.raises(MissingSetting, match="at least prediction and shape"):
        kdiff.load(path)
    assert kdiff.load(path, prediction="v").precond.name == "v"


@pytest.mark.parametrize("wrong", ["nothing", {"name": "edm", "colour": 1}, {}, 7])
def test_no_preconditioner(wrong, tmp_path):
    with pytest.raises(ValueError, match="precond"):
        kdiff.load(unet(tmp_path), precond=wrong)
