"""Makes tests/golden/edm*.pkl and edm*.safetensors with the original code of EDM or EDM2.

    python tools/make_edm_golden.py CLONE

CLONE is a clone of https://github.com/NVlabs/edm or https://github.com/NVlabs/edm2: run it once for
each (they need scipy and click). The pickles are as that code writes them, except that their source
text is replaced by a program that must not run.
"""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
SOURCE = "raise SystemExit('the source text in a pickle ran')\n"
SIGMAS = (0.05, 1.3, 20.0)
SMALL = {"model_channels": 8, "channel_mult": [1, 1], "channel_mult_emb": 2, "num_blocks": 1}
SONG = {"model_type": "SongUNet", "attn_resolutions": [4]}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
IMAGES = {"img_resolution": 8, "img_channels": 3}


def randomise(network: torch.nn.Module) -> None:
    """Weights with which every layer has an effect, unlike in an untrained network."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if "resample_filter" in name or name == "u":
            continue
        fan_in = value[0].numel() if value.ndim > 1 else 1
        noise = torch.randn(value.shape, generator=generator) / fan_in**0.5
        around_one = name.endswith("gain") or (".norm" in name and name.endswith("weight"))
        value.copy_(1 + 0.3 * noise if around_one else noise)


def write(name: str, network, half: bool = False, sampler=None, **others) -> None:
    """The pickle of a snapshot, what its network answers, and what `sampler` makes with it."""
    randomise(network)
    network.eval().requires_grad_(False)
    if half:
        network.to(torch.float16)
    with open(GOLDEN / f"{name}.pkl", "wb") as file:
        pickle.dump({**others, "ema": copy.deepcopy(network)}, file)
    shape = (3, network.img_channels, network.img_resolution, network.img_resolution)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    classes = network.label_dim
    labels = torch.eye(classes)[[0, classes - 1, 0]] if classes else None
    if classes:
        labels[2] = 0  # the null class
    answers = {f"D({s:g})": network(s * noise, torch.tensor(s), labels) for s in SIGMAS}
    if sampler:
        answers["sampled"] = sampler(network, noise, labels, num_steps=6, dtype=torch.float64)
    save_file({"noise": noise, **answers}, GOLDEN / f"{name}.safetensors")


def replace_source() -> None:
    from torch_utils import persistence

    for decorator in persistence._decorators:
        module = sys.modules[decorator.__mro__[1].__module__]
        decorator._orig_module_src = f"# {module.__name__}\n{SOURCE}"
        persistence._src_to_module_dict[decorator._orig_module_src] = module  # deepcopy looks there


def edm() -> None:
    from training import augment, loss, networks

    replace_source()
    pipe = augment.AugmentPipe(p=0.12, xflip=1e8, scale=1, rotate_frac=1)
    labelled = {**IMAGES, **SMALL, "label_dim": 3}
    wider = {**labelled, "channel_mult": [1, 2]}
    write("edm_vp", networks.VPPrecond(**labelled, **SONG, decoder_type="standard"))
    write(
        "edm_edm",
        networks.EDMPrecond(**wider, **SONG, **NCSNPP, augment_dim=9, sigma_data=0.6),
        loss_fn=loss.EDMLoss(),
        augment_pipe=pipe,
        dataset_kwargs={"path": "images.zip", "resolution": 8},
    )
    write("edm_ve", networks.VEPrecond(**IMAGES, **SMALL, **SONG, sigma_max=50))
    write("edm_iddpm", networks.iDDPMPrecond(**labelled, M=200, attn_resolutions=[]))
    write("edm_adm", networks.EDMPrecond(**wider, attn_resolutions=[]))


def edm2() -> None:
    import dnnlib
    from generate_images import edm_sampler
    from training import encoders, networks_edm2

    replace_source()
    settings = {**SMALL, "channel_mult": [1, 2], "attn_resolutions": [4], "channels_per_head": 8}
    options = dnnlib.EasyDict(class_name="training.dataset.ImageFolderDataset", use_labels=True)
    write(
        "edm2_latents",
        networks_edm2.Precond(img_resolution=8, img_channels=4, label_dim=3, **settings),
        half=True,
        sampler=edm_sampler,  # as in EDM, with guidance
        encoder=encoders.StabilityVAEEncoder(),
        dataset_kwargs=options,
    )
    write(
        "edm2_images",
        networks_edm2.Precond(**IMAGES, label_dim=0, **settings),
        half=True,
        encoder=encoders.StandardRGBEncoder(),
    )


def adm_attention() -> None:
    """What the ADM network answers at 128 channels, so with two heads, with the closed-form weights
    of tests/core/test_networks.py."""
    from training import networks

    sys.path[:0] = [str(GOLDEN.parent / folder) for folder in ("checkpoints", "support")]
    from test_edm import ADM, adm_inputs

    from small_networks import fill

    network = networks.DhariwalUNet(in_channels=3, out_channels=3, **ADM).eval().double()
    fill(network)
    x, c_noise, labels, augment = adm_inputs()
    with torch.no_grad():
        y = network(x, c_noise, torch.eye(3, dtype=torch.float64)[labels], augment)
    save_file({"y": y.float()}, GOLDEN / "edm_adm_attention.safetensors")


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    if (Path(sys.argv[1]) / "training" / "networks_edm2.py").exists():
        edm2()
    else:
        edm()
        adm_attention()
