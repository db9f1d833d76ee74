"""Writes tests/golden/openai_unet.json: what OpenAI's own networks compute, at small sizes with
weights in closed form, and the names, shapes and noise levels of the published models, built by
OpenAI's own scripts from the flags in their READMEs. tests/checkpoints/test_openai.py holds kdiff's
network and reader against it.

    python tools/make_openai_golden.py CHECKOUT_OF_GUIDED_DIFFUSION CHECKOUT_OF_IMPROVED_DIFFUSION
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path

import torch

OUT = Path(__file__).parents[1] / "tests/golden/openai_unet.json"

# kdiff's arguments (what differs in the original's is in `original`), for both code bases.
SMALL = {
    "legacy": {
        "code": "guided_diffusion",
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_levels": [1],
        "out_channels": 6,
        "num_classes": 5,
        "num_heads": 2,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    },
    "new order": {
        "code": "guided_diffusion",
        "channel_mult": [0.5, 1],
        "num_res_blocks": 2,
        "attention_levels": [0],
        "num_head_channels": 16,
        "use_new_attention_order": True,
    },
    "pooled": {
        "code": "guided_diffusion",
        "channel_mult": [1, 1],
        "num_res_blocks": 2,
        "attention_levels": [],
        "num_heads": 4,
        "conv_resample": False,
    },
    "improved": {
        "code": "improved_diffusion",
        "channel_mult": [1, 1, 2],
        "num_res_blocks": 1,
        "attention_levels": [1, 2],
        "num_heads": 4,
        "num_classes": 3,
        "use_scale_shift_norm": True,
    },
}
MODEL_CHANNELS = {"new order": 64}  # else 32: group norm has 32 groups

ADM = (
    "--attention_resolutions 32,16,8 --diffusion_steps 1000 --learn_sigma True "
    "--resblock_updown True --use_fp16 True --use_scale_shift_norm True "
)
LARGE = ADM + "--noise_schedule linear --num_channels 256 --num_res_blocks 2 "
HEADS = "--num_head_channels 64 "
COSINE = "--learn_sigma True --diffusion_steps 4000 --noise_schedule cosine --num_res_blocks 3 "
# The model and diffusion flags of the READMEs, by the names of the published files.
PUBLISHED = {
    "guided_diffusion": {
        "64x64_diffusion": ADM + "--class_cond True --image_size 64 --noise_schedule cosine "
        "--num_channels 192 --num_head_channels 64 --num_res_blocks 3 "
        "--use_new_attention_order True",
        "128x128_diffusion": LARGE + "--class_cond True --image_size 128 --num_heads 4",
        "256x256_diffusion": LARGE + HEADS + "--class_cond True --image_size 256",
        "256x256_diffusion_uncond": LARGE + HEADS + "--class_cond False --image_size 256",
        "512x512_diffusion": LARGE + HEADS + "--class_cond True --image_size 512",
        "lsun_bedroom": LARGE + HEADS + "--class_cond False --dropout 0.1 --image_size 256",
    },
    "improved_diffusion": {
        "imagenet64_uncond_100M_1500K": COSINE + "--image_size 64 --num_channels 128",
        "cifar10_uncond_50M_500K": COSINE + "--image_size 32 --num_channels 128 --dropout 0.3",
        "imagenet64_cond_270M_250K": COSINE + "--image_size 64 --num_channels 192 "
        "--class_cond True --rescale_learned_sigmas False --rescale_timesteps False",
        "lsun_uncond_100M_1200K_bs128": "--image_size 256 --num_channels 128 --num_res_blocks 2 "
        "--num_heads 1 --learn_sigma True --use_scale_shift_norm False --attention_resolutions 16 "
        "--diffusion_steps 1000 --noise_schedule linear --rescale_learned_sigmas False "
        "--rescale_timesteps False",
    },
}


def fill(network: torch.nn.Module) -> None:
    """Weights that any program can repeat: sin(k), k = 1, 2, .. scaled by the fan-in."""
    for value in network.state_dict().values():
        k = torch.arange(1, value.numel() + 1, dtype=torch.float64)
        scale = (value[0].numel() if value.ndim > 1 else 4) ** -0.5
        value.copy_((k.sin() * scale).reshape(value.shape))


def small(name: str) -> dict:
    arguments = {"model_channels": MODEL_CHANNELS.get(name, 32), **SMALL[name]}
    original = {"in_channels": 3, "out_channels": 3, **arguments}
    code = original.pop("code")
    original["attention_resolutions"] = [2**i for i in original.pop("attention_levels")]
    if code == "guided_diffusion":
        original["image_size"] = 8
    network = import_module(f"{code}.unet").UNetModel(**original).eval()
    fill(network)
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).cos().reshape(2, 3, 8, 8)
    labels = {"y": torch.tensor([1, 2])} if "num_classes" in original else {}
    with torch.no_grad():
        y = network(x, torch.tensor([0.25, 999.0]), **labels)
    del arguments["code"]
    values = [round(v, 7) for v in y.flatten()[::7].tolist()]
    return {"arguments": arguments, "names": sorted(network.state_dict()), "values": values}


def published(code: str, flags: str) -> dict:
    util = import_module(f"{code}.script_util")
    settings = util.model_and_diffusion_defaults()
    words = flags.split()
    for flag, text in zip(words[::2], words[1::2], strict=True):
        default = settings[flag.removeprefix("--")]
        kind = util.str2bool if isinstance(default, bool) else type(default)
        settings[flag.removeprefix("--")] = kind(text)
    with torch.device("meta"):
        network, diffusion = util.create_model_and_diffusion(**settings)
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    attentions = [m for m in network.modules() if type(m).__name__ == "AttentionBlock"]
    steps = [0, 500, diffusion.num_timesteps - 1]
    clock = diffusion._wrap_model(lambda _, t: t)  # what the network is given as the time
    return {
        "shapes": hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest(),
        "parameters": sum(value.numel() for value in network.state_dict().values()),
        "heads": [m.num_heads for m in attentions],
        "new_order": settings.get("use_new_attention_order", False),
        "image_size": settings["image_size"],
        "steps": steps,
        "sigmas": diffusion.sqrt_recipm1_alphas_cumprod[steps].tolist(),
        "times": clock(None, torch.tensor(steps)).tolist(),
    }


def main(checkouts: list[str]) -> None:
    sys.path[:0] = checkouts
    golden = {
        "small": {name: small(name) for name in SMALL},
        "published": {
            name: published(code, flags)
            for code, models in PUBLISHED.items()
            for name, flags in models.items()
        },
    }
    OUT.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
