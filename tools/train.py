"""Train the packaged models: the EDM loss (Karras et al. 2022, eq. 8), on anything from
two CPU cores to `torchrun`.

    python tools/train.py --data ~/data/cifar10 --out runs/cifar10

Stop it at any time (Ctrl-C, SIGTERM) and run the same line again: it goes on from its checkpoint.
`OUT/model-ema30.safetensors` is what `kdiff sample --model` reads: the moving average of the
weights with a half-life of 30 thousand images. There is one for each `--ema-kimg`;
`kdiff sweep --model A,B` tells which is best.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

import kdiff
from augment import augment
from kdiff.checkpoints import native
from kdiff.cli.paths import UserPath
from kdiff.files import whole_file
from kdiff.images import grid, save_image, to_uint8
from kdiff.networks import NETWORKS
from kdiff.networks.song_unet import UNetBlock
from kdiff.preconditioners import Precond, precond
from muon import Muon
from processes import StopRequest, device_of_this_process, start_processes
from recipes import RECIPES, Recipe

P_MEAN, P_STD = -1.2, 1.2  # ln sigma of the training noise (EDM, table 1)
POSITIVE, ZERO_OR_MORE = click.FloatRange(0, min_open=True), click.FloatRange(0)


def training_sigmas(n: int) -> Tensor:
    """n noise levels with ln sigma ~ N(P_MEAN, P_STD^2), stratified: one in each n-quantile, which
    makes the loss of a batch less noisy than independent draws do."""
    quantiles = (torch.randperm(n, dtype=torch.float64) + torch.rand(n, dtype=torch.float64)) / n
    return torch.exp(P_MEAN + P_STD * torch.special.ndtri(quantiles))


def edm_loss(network: nn.Module, precond: Precond, images: Tensor, **labels: Tensor) -> Tensor:
    """The mean of lambda(sigma) |D(y + n) - y|^2, which in terms of the network's own output is
    |F(c_in x; c_noise) - (y - c_skip x) / c_out|^2, for each pixel: `[N, C, H, W] -> scalar`."""
    sigmas = training_sigmas(len(images))
    rows = [(s, *precond(s)) for s in sigmas.tolist()]
    table = torch.tensor(rows, dtype=torch.float32, pin_memory=images.is_cuda)
    columns = table.to(images.device, non_blocking=True).T[..., None, None, None]
    sigma, c_skip, c_out, c_in, c_noise = columns
    x = images + sigma * torch.randn_like(images)
    f = network(c_in * x, c_noise.flatten(), **labels)
    return (f.float() - (images - c_skip * x) / c_out).square().mean()


class Data:
    """Batches drawn without replacement, epoch after epoch, changed as the recipe says."""

    def __init__(self, path: str, recipe: Recipe, device: torch.device):
        images, labels = recipe.load(path)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.recipe = recipe
        self.order = torch.empty(0, dtype=torch.long, device=device)

    def batch(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Images `[n, C, H, W]` in [-1, 1], and the labels that the network takes by name."""
        while len(self.order) < n:
            epoch = torch.randperm(len(self.images), device=self.order.device)
            self.order = torch.cat([self.order, epoch])
        index, self.order = self.order[:n], self.order[n:]
        images = self.images[index].float() / 127.5 - 1
        labels = {"class_labels": self.labels[index]}
        if self.recipe.augment is not None:
            images, labels["augment_labels"] = augment(images, self.recipe.augment)
        elif self.recipe.flip:
            flip = torch.rand(n, 1, 1, 1, device=images.device) < 0.5
            images = torch.where(flip, images.flip(3), images)
        return images.contiguous(memory_format=torch.channels_last), labels


def learning_rate(images: int, recipe: Recipe) -> float:
    """After so many images: a linear warm-up, constant, then linear to zero at the end."""
    kimg = images / 1000
    warm = (kimg + 0.001) / recipe.warmup_kimg
    left = (recipe.kimg - kimg) / recipe.decay_kimg if recipe.decay_kimg else 1.0
    return recipe.lr * min(1.0, warm, max(0.0, left))


def make_network(config: dict[str, Any], device: torch.device) -> nn.Module:
    """The network of a kdiff/1 `config`, with random weights."""
    settings = {k: v for k, v in config["network"].items() if k != "name"}
    network = NETWORKS[config["network"]["name"]](**settings)
    return network.to(device, memory_format=torch.channels_last)


def make_optimizers(network: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks; Adam for vectors, embeddings and the two ends."""
    matrices = [
        p for block in network.modules() if isinstance(block, UNetBlock)
        for p in block.parameters() if p.ndim > 1
    ]  # fmt: skip
    chosen = set(matrices)
    rest = [p for p in network.parameters() if p not in chosen]
    return [Muon(matrices, lr), torch.optim.Adam(rest, lr, betas=(0.9, 0.99), fused=True)]


class Trainer:
    """The network, its moving averages, the optimizers, and how far they have come.

    `state` is images and seconds so far and the mean loss since the last `save`.
    """

    def __init__(self, recipe: Recipe, device: torch.device):
        self.config, self.device = recipe.config, device
        self.network = make_network(self.config, device)
        self.averages = {kimg: make_network(self.config, device) for kimg in recipe.ema_kimg}
        self.start_from(self.network.state_dict())
        self.optimizers = make_optimizers(self.network, recipe.lr)
        self.state = {"images": 0, "seconds": 0.0, "loss": float("nan")}
        self.losses: list[Tensor] = []
        self.gradient_norm = torch.zeros(())

    def start_from(self, weights: dict[str, Tensor]) -> None:
        for network in (self.network, *self.averages.values()):
            network.load_state_dict(weights)
        for average in self.averages.values():
            average.eval().requires_grad_(False)

    def step(self, loss: Tensor, lr: float, batch: int) -> None:
        """Follow the gradient of the `loss` of `batch` images."""
        loss.backward()
        self.losses.append(loss.detach())
        self.gradient_norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        self.state["images"] += batch
        self._update_averages(batch)

    @torch.no_grad()
    def _update_averages(self, batch: int) -> None:
        # The half-life is at most a twentieth of the training so far, so that the start is
        # forgotten (the ramp-up of Karras et al. 2022).
        for kimg, average in self.averages.items():
            beta = 0.5 ** (batch / min(1000 * kimg, self.state["images"] / 20))
            torch._foreach_lerp_(
                list(average.parameters()), list(self.network.parameters()), 1 - beta
            )

    @property
    def _parts(self) -> dict:
        optimizers = {f"optimizer{i}": part for i, part in enumerate(self.optimizers)}
        averages = {f"ema{kimg:g}": part for kimg, part in self.averages.items()}
        return {"network": self.network, **averages, **optimizers}

    def save(self, out: Path, seconds: float) -> None:
        """Write the checkpoint, the models and train.json into `out`, each whole or not at all.
        click.ClickException if the training has diverged; the files that exist stay."""
        self.state["seconds"] = seconds
        self.state["loss"] = float(torch.stack(self.losses).mean())
        self.losses.clear()
        if not math.isfinite(self.state["loss"] + float(self.gradient_norm)):
            raise click.ClickException(
                f"after {self.state['images']} images the loss or its gradient is not finite; "
                f"{out} has the last good checkpoint: go on from it with a lower --lr"
            )
        saved = {"state": self.state, "config": self.config}
        saved |= {name: part.state_dict() for name, part in self._parts.items()}
        with whole_file(out / "checkpoint.pt") as temporary:
            torch.save(saved, temporary)
        for kimg, average in self.averages.items():
            native.save(out / f"model-ema{kimg:g}.safetensors", average.state_dict(), self.config)
        with whole_file(out / "train.json") as temporary:
            temporary.write_text(json.dumps(self.state, indent=1) + "\n")

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. click.UsageError if it is of another recipe."""
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if saved["config"] != self.config or not saved.keys() >= self._parts.keys():
            raise click.UsageError(f"{path} is of another recipe, or has other --ema-kimg")
        self.state = saved["state"]
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])

    def sample_grid(self, path: Path) -> None:
        """Ten columns, one a class, of the shortest moving average's pictures."""
        average = self.averages[min(self.averages)]
        model = native.build(self.config, average.state_dict(), "ema").to(self.device)
        labels = [i % 10 for i in range(80)]
        images = kdiff.sample(model, "dpmpp_2m", steps=20, seeds=range(80), class_labels=labels)
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            save_image(grid(to_uint8(images), columns=10), temporary)


def start_trainer(recipe: Recipe, out: Path, init: str | None) -> Trainer:
    """Where the checkpoint in `out` is, or else at the model `init`, or else at random weights."""
    trainer = Trainer(recipe, device_of_this_process())
    if (out / "checkpoint.pt").exists():
        trainer.load(out / "checkpoint.pt")
    elif init:
        try:
            trainer.start_from(kdiff.load(init).network.state_dict())
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise click.UsageError(f"--init {init} does not fit: {reason}") from error
    return trainer


def load_data(path: str, recipe: Recipe, device: torch.device, rank: int) -> Data:
    """The first process goes first: it downloads the data if need be."""
    if dist.is_initialized() and rank > 0:
        dist.barrier()
    source = Data(path, recipe, device)
    if dist.is_initialized() and rank == 0:
        dist.barrier()
    return source


@click.command(context_settings={"show_default": True})
@click.option("--recipe", "name", type=click.Choice(list(RECIPES)), default="cifar10")
@click.option("--data", required=True, help="torchvision's folder of the data, or an .npz.")
@click.option("--out", required=True, type=UserPath(), help="Output folder.")
@click.option("--kimg", type=POSITIVE, help="Thousands of images to train for, in all.")
@click.option("--decay-kimg", type=ZERO_OR_MORE, help="The last of them bring the rate to zero.")
@click.option("--batch", type=click.IntRange(1), help="Images a step, over all processes.")
@click.option("--lr", type=POSITIVE, help="Peak learning rate.")
@click.option("--ema-kimg", type=POSITIVE, multiple=True, help="Half-life of a moving average.")
@click.option("--save-kimg", type=POSITIVE, help="Checkpoint and sample grid every so often.")
@click.option("--init", help="A model of the same network to start from, instead of noise.")
@click.option("--draw/--no-draw", default=True, help="Draw OUT/samples/*.png at checkpoints.")
@click.option("--bf16/--fp32", default=True, help="Precision of the network's arithmetic.")
@click.option("--compile/--no-compile", "compile_", default=True, help="Use torch.compile.")
@click.option("--seed", default=0)
def main(name, data, out, init, draw, bf16, compile_, seed, **changes):
    """Train a class-conditional model; the defaults are the recipe's, in recipes.py."""
    given = {key: value for key, value in changes.items() if value not in (None, ())}
    recipe = replace(RECIPES[name], **given)
    world, rank = start_processes(recipe.batch)
    torch.manual_seed(seed)  # every process starts from the same weights ..
    out.mkdir(parents=True, exist_ok=True)
    trainer = start_trainer(recipe, out, init)
    state, device = trainer.state, trainer.device
    torch.manual_seed(hash((seed, rank, state["images"])))  # .. and draws its own images
    source = load_data(data, recipe, device, rank)
    network = trainer.network
    network = nn.parallel.DistributedDataParallel(network) if world > 1 else network
    network = torch.compile(network) if compile_ else network
    process = precond(**recipe.config["precond"])

    stop, saved_at, step = StopRequest(), state["images"], 0
    started = time.monotonic() - state["seconds"]
    total = 1000 * recipe.kimg
    bar = tqdm(total=total, initial=saved_at, unit="img", disable=rank > 0, mininterval=1)
    finished = saved_at >= total
    while not finished:
        images, labels = source.batch(recipe.batch // world)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = edm_loss(network, process, images, **labels)
        trainer.step(loss, learning_rate(state["images"], recipe), recipe.batch)
        step += 1
        bar.update(recipe.batch)
        finished = stop.at(step) or state["images"] >= total
        if rank == 0 and (finished or state["images"] - saved_at >= 1000 * recipe.save_kimg):
            saved_at = state["images"]
            trainer.save(out, time.monotonic() - started)
            bar.write(json.dumps(state))
            if draw:
                trainer.sample_grid(out / "samples" / f"{saved_at:08d}.png")
    bar.close()
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
