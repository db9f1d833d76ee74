"""Writers of a small checkpoint of each format, `(path, width) -> path`: as large as `width` says,
all weights zero."""

import gzip
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

import kdiff
import nvidia_pickles
from kdiff.checkpoints import k_diffusion, native
from kdiff.networks.edm2_unet import EDM2UNet
from kdiff.networks.lucidrains_unet import LucidrainsUNet
from kdiff.networks.openai_unet import OpenAIUNet
from kdiff.networks.song_unet import SongUNet
from places import GOLDEN


def on_meta(make, *args, **settings):
    with torch.device("meta"):
        return make(*args, **settings)


def zeros(network, dtype=torch.float32):
    return {k: torch.zeros(v.shape, dtype=dtype) for k, v in network.state_dict().items()}


def native_file(path, width, dtype=torch.float32):
    path = path.with_suffix(".safetensors")
    network = on_meta(SongUNet, 8, model_channels=width, num_blocks=1).to_empty(device="cpu")
    config = native.describe(kdiff.Denoiser(network, "edm", shape=(3, 8, 8)))
    native.save(path, zeros(network), config, dtype)
    return path


def half_file(path, width):
    return native_file(path, width, torch.float16)


def edm_file(path, width):
    settings = {**nvidia_pickles.SETTINGS, "model_channels": 2 * width}
    model = nvidia_pickles.network(zeros(on_meta(SongUNet, **settings)), **settings)
    path.write_bytes(pickle.dumps(nvidia_pickles.snapshot(model)))
    return path


def edm2_file(path, width):
    settings = {"img_resolution": 8, "img_channels": 3, "model_channels": width}
    network = on_meta(EDM2UNet, **settings, channels_per_head=8)
    model = nvidia_pickles.tree(zeros(network, torch.float16))
    settings["channels_per_head"] = 8
    model.meta["state"] |= {"_init_args": (), "_init_kwargs": settings}
    outer = {"img_resolution": 8, "img_channels": 3, "sigma_data": 0.5}
    path.write_bytes(
        pickle.dumps({"ema": nvidia_pickles.module("Precond", {"unet": model}, **outer)})
    )
    return path


def openai_file(path, width):
    network = on_meta(
        OpenAIUNet,
        model_channels=width,
        channel_mult=(1, 2),
        num_res_blocks=2,
        attention_levels=(1,),
        num_heads=1,
    )
    torch.save(zeros(network), path)
    return path


def lucidrains_file(path, width):
    network = on_meta(
        LucidrainsUNet,
        dim=width,
        init_dim=width,
        widths=[width, 2 * width],
        full_attention=[False, True],
        heads=[2, 2],
        head_channels=[4, 4],
        memory=4,
    )
    average = {f"ema_model.model.{k}": v for k, v in zeros(network).items()}
    average["ema_model.sqrt_recipm1_alphas_cumprod"] = torch.linspace(0.01, 50.0, 100)
    torch.save({"step": 1, "ema": average, "version": "2.2.5"}, path)
    return path


def score_sde_file(path, width):
    """One variant has few channels, and another is published: there are no others."""
    golden = json.loads(gzip.decompress((GOLDEN / "score_sde.json.gz").read_bytes()))
    large = golden["published"]["vp.cifar10_ddpmpp_continuous"]["model"]
    shapes = large if width > 32 else golden["networks"]["vpsde"]["model"]
    tensors = {key: torch.zeros(shape) for key, shape in shapes}
    model = {f"module.{key}": value for key, value in tensors.items()}
    model["module.sigmas"] = torch.linspace(50.0, 0.01, 1000)
    trained = [value for key, value in tensors.items() if key != "sigmas"]
    torch.save({"model": model, "ema": {"shadow_params": trained}, "step": 7}, path)
    return path


def image_v1(width):
    golden = json.loads(gzip.decompress((GOLDEN / "k_diffusion_networks.json.gz").read_bytes()))
    config = golden["networks"]["image_v1"]["config"]
    config["model"]["channels"] = [4 * width, 8 * width]
    return config, zeros(on_meta(k_diffusion.NETWORKS["image_v1"](config)))


def k_diffusion_training(path, width):
    config, tensors = image_v1(width)
    torch.save({"config": config, "model": tensors, "model_ema": tensors}, path)
    return path


def k_diffusion_inference(path, width):
    config, tensors = image_v1(width)
    path = path.with_suffix(".safetensors")
    save_file(tensors, path, {"config": json.dumps(config)})
    return path


def diffusers_folder(path, width):
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(width, 2 * width),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    network.save_pretrained(path)
    return path


SHAPE = {"shape": (3, 8, 8)}
FLAGS = {**SHAPE, "num_heads": 1, "noise_schedule": "linear"}


KINDS = {  # a writer, the width of a file of some 100 MB, options
    "kdiff": (native_file, 128, {}),
    "kdiff in float16": (half_file, 160, {}),
    "kdiff in float16, kept": (half_file, 160, {"dtype": None}),
    "EDM": (edm_file, 128, {}),
    "EDM2": (edm2_file, 96, {}),
    "EDM2, kept": (edm2_file, 96, {"dtype": None}),
    "openai": (openai_file, 128, FLAGS),
    "lucidrains": (lucidrains_file, 256, {**SHAPE, "prediction": "eps"}),
    "score_sde": (score_sde_file, 128, SHAPE),
    "k-diffusion, .pth": (k_diffusion_training, 96, {}),
    "k-diffusion, .safetensors": (k_diffusion_inference, 96, {}),
    "diffusers": (diffusers_folder, 192, {}),
}
