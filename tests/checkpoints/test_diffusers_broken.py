"""Folders of diffusers that are damaged, hostile or not supported: one line says why."""

import shutil

import diffusers
import pytest
import torch

import kdiff
from diffusers_networks import make_condition, make_unet, rewrite, save
from kdiff.checkpoints import diffusers_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


def test_what_shares_a_name_with_early_dit(tmp_path):
    diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=12,
        use_additional_conditions=False,
    ).save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", _class_name="Transformer2DModel")
    with pytest.raises(ValueError, match="that is not DiT's"):
        kdiff.load(tmp_path)


def test_detect(tmp_path):
    assert diffusers_folder.detect(tmp_path / "none") == "not a folder"
    assert diffusers_folder.detect(tmp_path) == "no model_index.json and no config.json"
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    assert diffusers_folder.detect(tmp_path) == "config.json is of a VQModel"


BROKEN = {
    "its network is a VQModel": lambda p: rewrite(p / "unet/config.json", _class_name="VQModel"),
    "is not JSON": lambda p: (p / "unet/config.json").write_text("{"),
    "is not a JSON object": lambda p: (p / "unet/config.json").write_text("[1]"),
    "no config.json": lambda p: (p / "unet/config.json").unlink(),
    "too large": lambda p: (p / "unet/config.json").write_text(" " * 2**21),
    "names no network": lambda p: rewrite(p / "unet/config.json", _class_name=["a"]),
    "quantized": lambda p: rewrite(p / "unet/config.json", quantization_config={"a": 1}),
    "describes a network": lambda p: rewrite(
        p / "unet/config.json", block_out_channels=[40000, 40000], norm_num_groups=1
    ),
    "layers_per_block is": lambda p: rewrite(p / "unet/config.json", layers_per_block=10**9),
    "do not fit": lambda p: rewrite(p / "unet/config.json", block_out_channels=[8, 24]),
    "not a whole safetensors": lambda p: truncate(p / "unet/diffusion_pytorch_model.safetensors"),
    "no diffusion_pytorch_model": lambda p: (
        p / "unet/diffusion_pytorch_model.safetensors"
    ).unlink(),
    "time_embedding_type": lambda p: make_unet(time_embedding_type="fourier").save_pretrained(
        p / "unet"
    ),
    "no sample_size": lambda p: rewrite(p / "unet/config.json", sample_size=None),
    "prediction_type 'score'": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", prediction_type="score"
    ),
    "num_train_timesteps": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", num_train_timesteps=10**12
    ),
    "betas of DDPMScheduler": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", beta_schedule="wavy"
    ),
    "timestep_type 'continuous' is not": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", timestep_type="continuous"
    ),
    "snr_shift_scale 3.0 is not": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", snr_shift_scale=3.0
    ),
    "EDMEulerScheduler is not supported": lambda p: (
        p / "scheduler/scheduler_config.json"
    ).write_text('{"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}'),
    "dynamic_shifting": lambda p: (p / "scheduler/scheduler_config.json").write_text(
        '{"shift": 3.0, "use_dynamic_shifting": true}'
    ),
    "a LDMPipeline is not supported": lambda p: rewrite(
        p / "model_index.json", _class_name="LDMPipeline", vqvae=["diffusers", "VQModel"]
    ),
}


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save(tmp_path_factory.mktemp("whole"), make_unet(), diffusers.DDPMScheduler())


@pytest.mark.parametrize("message", BROKEN)
def test_broken_folders(message, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    BROKEN[message](tmp_path / "copy")
    with pytest.raises(ValueError, match=message) as caught:
        kdiff.load(tmp_path / "copy")
    assert "\n" not in str(caught.value)


def test_pickles_do_not_run(whole, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    shutil.copytree(whole, tmp_path / "copy")
    (tmp_path / "copy/unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({"a": Hostile()}, tmp_path / "copy/unet/diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="tensors alone"):
        kdiff.load(tmp_path / "copy")
    assert not (tmp_path / "ran").exists()


def test_without_diffusers(whole, monkeypatch):
    monkeypatch.setattr(diffusers_folder, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs diffusers: pip install diffusers"):
        kdiff.load(whole)


def test_unsupported_channels(tmp_path):
    with pytest.raises(ValueError, match="9 channels in and 4 out"):
        kdiff.load(save(tmp_path, make_condition(in_channels=9)))
