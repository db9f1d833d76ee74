"""How well a model denoises images that it has not seen: the quality figure of a model card.

    python tools/denoising_error.py --recipe cifar10 --data ~/data --model cifar10

Prints, for each noise level, the root mean square error of D(x + sigma n; sigma) against the clean
test images of the recipe's data, in units of [-1, 1]. Beside it stands the error of the best guess
that knows only the mean and variance of all pixels, sigma s / sqrt(sigma^2 + s^2).
"""

from __future__ import annotations

import math

import click
import torch
from tqdm import tqdm

import kdiff
from recipes import RECIPES

SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)


@click.command(context_settings={"show_default": True})
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="cifar10")
@click.option("--data", required=True, help="torchvision's folder of the data, or an .npz.")
@click.option("--model", "name", default="cifar10", help="A packaged model, or a checkpoint.")
@click.option("--num", default=1000, help="How many test images.")
@click.option("--batch", default=100)
def main(recipe: str, data: str, name: str, num: int, batch: int) -> None:
    """Denoising error on the test images; see the top of this file."""
    try:
        model = kdiff.load(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    images, labels = RECIPES[recipe].load(data, train=False)
    clean = torch.from_numpy(images[:num]).permute(0, 3, 1, 2).float() / 127.5 - 1
    classes = torch.from_numpy(labels[:num])
    noise = kdiff.Noise(range(len(clean)), clean.shape[1:]).initial()
    spread = float(clean.std())
    click.echo(f"{len(clean)} test images, model {name}\n   sigma     RMSE  Gaussian guess")
    for sigma in tqdm(SIGMAS):
        errors = []
        for part in torch.arange(len(clean)).split(batch):
            with torch.no_grad():
                d = model(clean[part] + sigma * noise[part], sigma, class_labels=classes[part])
            errors.append((d - clean[part]).square().mean(dim=(1, 2, 3)))
        rmse = float(torch.cat(errors).mean()) ** 0.5
        guess = sigma * spread / math.hypot(sigma, spread)
        tqdm.write(f"{sigma:8.2f} {rmse:8.4f}        {guess:8.4f}")


if __name__ == "__main__":
    main()
