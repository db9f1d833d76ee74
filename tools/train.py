"""Train the packaged CIFAR-10 model: the EDM loss (Karras et al. 2022, eq. 8), on anything from
two CPU cores to `torchrun`.

    python tools/train.py --data ~/data/cifar10 --out runs/cifar10 --kimg 600

Stop it at any time (Ctrl-C, SIGTERM) and run the same line again: it goes on from its checkpoint.
`OUT/model.safetensors` is what `kdiff sample --model` reads: the exponential moving average.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import click
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from cifar10 import CLASSES, load_cifar10
from kdiff.checkpoints import native
from kdiff.files import whole_file
from kdiff.networks import NETWORKS
from kdiff.precond import precond

# 4.1 M parameters and 1.2 GFLOP an image: what two CPU cores can train in two hours.
CONFIG = {
    "network": {
        "name": "song_unet",
        "img_resolution": 32,
        "label_dim": 10,
        "model_channels": 32,
        "channel_mult": [1, 2, 4],
        "num_blocks": 2,
        "attn_resolutions": [8],
        "dropout": 0.0,
        "label_dropout": 0.1,
    },
    "precond": {"name": "edm", "sigma_data": 0.5},
    "shape": [3, 32, 32],
    "classes": CLASSES,
}
P_MEAN, P_STD = -1.2, 1.2  # ln sigma of the training noise (EDM, table 1)
EDM = precond(**CONFIG["precond"])


def training_sigmas(n: int) -> Tensor:
    """n noise levels with ln sigma ~ N(P_MEAN, P_STD^2), stratified: one in each n-quantile, which
    makes the loss of a batch less noisy than independent draws do."""
    quantiles = (torch.randperm(n, dtype=torch.float64) + torch.rand(n, dtype=torch.float64)) / n
    return torch.exp(P_MEAN + P_STD * torch.special.ndtri(quantiles))


def edm_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The mean of lambda(sigma) |D(y + n) - y|^2, which in terms of the network's own output is
    |F(c_in x; c_noise) - (y - c_skip x) / c_out|^2, for each pixel: `[N, C, H, W] -> scalar`."""
    sigmas = training_sigmas(len(images))
    coefs = torch.tensor([EDM(float(s)) for s in sigmas]).to(images)
    c_skip, c_out, c_in, c_noise = coefs.T[..., None, None, None]
    sigma = sigmas.to(images)[:, None, None, None]
    x = images + sigma * torch.randn_like(images)
    f = network(c_in * x, c_noise.flatten(), class_labels=labels)
    return (f.float() - (images - c_skip * x) / c_out).square().mean()


class Data:
    """Batches drawn without replacement, epoch after epoch, flipped left to right half the time."""

    def __init__(self, path: str, device: torch.device):
        images, labels = load_cifar10(path)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.order = torch.empty(0, dtype=torch.long)

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        if len(self.order) < n:
            self.order = torch.cat([self.order, torch.randperm(len(self.images))])
        index, self.order = self.order[:n].to(self.images.device), self.order[n:]
        images = self.images[index].float() / 127.5 - 1
        flip = torch.rand(n, 1, 1, 1, device=images.device) < 0.5
        images = torch.where(flip, images.flip(3), images)
        return images.contiguous(memory_format=torch.channels_last), self.labels[index]


def learning_rate(kimg: float, peak: float, warmup: float, total: float, decay: float) -> float:
    """Linear warm-up, constant, then linear to zero over the last `decay` thousand images."""
    return peak * min(1.0, (kimg + 1e-3) / warmup, max(0.0, (total - kimg) / decay))


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, kimg: float, batch: int, half_life: float):
    """The average's half-life is `half_life` thousand images, but at most a twentieth of the
    training so far, so that the start is forgotten (EDM's ramp-up)."""
    beta = 0.5 ** (batch / 1000 / max(min(half_life, kimg / 20), 1e-8))
    for average, parameter in zip(ema.parameters(), network.parameters(), strict=True):
        average.lerp_(parameter, 1 - beta)


def sample_grid(ema: nn.Module, path: Path, device: torch.device) -> None:
    import kdiff
    from kdiff.images import grid, save_image, to_uint8

    model = native.build(CONFIG, ema.state_dict(), "ema").to(device)
    labels = [i % 10 for i in range(80)]
    images = kdiff.sample(model, "dpmpp_2m", steps=20, seeds=range(80), class_labels=labels)
    with whole_file(path) as temporary:
        save_image(grid(to_uint8(images), columns=10), temporary)


def save_checkpoint(out: Path, state: dict, network, ema, optimizer) -> None:
    parts = {"network": network, "ema": ema, "optimizer": optimizer}
    with whole_file(out / "checkpoint.pt") as temporary:
        torch.save({"state": state, **{k: v.state_dict() for k, v in parts.items()}}, temporary)
    native.save(out / "model.safetensors", ema.state_dict(), CONFIG)
    with whole_file(out / "train.json") as temporary:
        temporary.write_text(json.dumps(state, indent=1) + "\n")


def autocast(device: torch.device, bf16: bool):
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


@click.command(context_settings={"show_default": True})
@click.option("--data", required=True, help="torchvision's CIFAR-10 folder, or an .npz.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Output folder.")
@click.option("--kimg", default=600.0, help="Thousands of images to train for, in all.")
@click.option("--decay-kimg", default=150.0, help="The last of them bring the rate to zero.")
@click.option("--batch", default=64, help="Images a step, over all processes.")
@click.option("--lr", default=1e-3, help="Peak learning rate of Adam.")
@click.option("--ema-kimg", default=50.0, help="Half-life of the weights' moving average.")
@click.option("--save-kimg", default=20.0, help="Checkpoint and sample grid every so often.")
@click.option("--grid/--no-grid", default=True, help="Draw OUT/samples/*.png at checkpoints.")
@click.option("--bf16/--fp32", default=True, help="Precision of the network's arithmetic.")
@click.option("--compile/--no-compile", "compile_", default=True, help="Use torch.compile.")
@click.option("--seed", default=0)
def main(data, out, kimg, decay_kimg, batch, lr, ema_kimg, save_kimg, grid, bf16, compile_, seed):
    """Train a class-conditional CIFAR-10 model; see the top of this file."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else "cpu"
    device = torch.device(device)
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    if batch % world:
        raise click.UsageError(f"--batch {batch} cannot be divided over {world} processes")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    torch.manual_seed(seed)
    settings = {k: v for k, v in CONFIG["network"].items() if k != "name"}
    make = NETWORKS[CONFIG["network"]["name"]]
    network = make(**settings).to(device, memory_format=torch.channels_last)
    ema = make(**settings).to(device, memory_format=torch.channels_last)
    ema.load_state_dict(network.state_dict())
    ema.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr, betas=(0.9, 0.99), weight_decay=0, fused=True
    )
    state = {"kimg": 0.0, "seconds": 0.0, "loss": float("nan")}
    out.mkdir(parents=True, exist_ok=True)
    (out / "samples").mkdir(exist_ok=True)
    if (out / "checkpoint.pt").exists():
        saved = torch.load(out / "checkpoint.pt", map_location=device, weights_only=True)
        state = saved["state"]
        for part, name in ((network, "network"), (ema, "ema"), (optimizer, "optimizer")):
            part.load_state_dict(saved[name])

    torch.manual_seed(hash((seed, rank, round(1000 * state["kimg"]))) % 2**63)
    source = Data(data, device)
    trained = nn.parallel.DistributedDataParallel(network) if world > 1 else network
    trained = torch.compile(trained) if compile_ else trained

    stop = False

    def request_stop(*_):
        nonlocal stop
        stop = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)

    bar = tqdm(total=kimg, initial=state["kimg"], unit="kimg", disable=rank > 0, smoothing=0.05)
    saved_at, started, losses = state["kimg"], time.monotonic() - state["seconds"], []
    while state["kimg"] < kimg and not stop:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(state["kimg"], lr, 10.0, kimg, decay_kimg)
        images, labels = source.batch(batch // world)
        with autocast(device, bf16):
            loss = edm_loss(trained, images, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        state["kimg"] += batch / 1000
        update_ema(ema, network, state["kimg"], batch, ema_kimg)
        losses.append(loss.detach())
        bar.update(batch / 1000)
        finished = stop or state["kimg"] >= kimg
        if rank == 0 and (finished or state["kimg"] - saved_at >= save_kimg):
            saved_at = state["kimg"]
            state["seconds"] = time.monotonic() - started
            state["loss"] = float(np.mean([float(x) for x in losses]))
            losses.clear()
            save_checkpoint(out, state, network, ema, optimizer)
            bar.write(json.dumps(state))
            if grid:
                sample_grid(ema, out / "samples" / f"{state['kimg']:08.0f}.png", device)
    bar.close()
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
