"""The mean and spread of a model's data, from which `first="analytic"` answers.

    python tools/data_spread.py --recipe cifar10 --data ~/data --out kdiff/assets/cifar10.json

Writes, for the recipe's training images in [-1, 1], `data_mean`, a number for each channel, and
`data_std`, the root mean square distance from it (`kdiff/model_data.py`).
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from kdiff.files import to_json
from recipes import RECIPES


def spread(images: np.ndarray) -> dict[str, object]:
    """Of `images`, uint8 [N, H, W, C]."""
    counts = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    levels = np.arange(256) / 127.5 - 1
    pixels = images[..., 0].size
    means = [float(count @ levels) / pixels for count in counts]
    squares = [count @ (levels - m) ** 2 / pixels for count, m in zip(counts, means, strict=True)]
    std = float(np.mean(squares)) ** 0.5
    return {"data_mean": [[[round(m, 6)]] for m in means], "data_std": round(std, 6)}


@click.command()
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="cifar10")
@click.option("--data", required=True, help="torchvision's folder of the data, or an .npz.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: print it]")
def main(recipe: str, data: str, out: Path | None) -> None:
    """Measure it; see the top of this file."""
    images, _ = RECIPES[recipe].load(data, train=True)
    text = to_json(spread(images), indent=None)
    if out is None:
        click.echo(text)
    else:
        out.write_text(text + "\n")


if __name__ == "__main__":
    main()
