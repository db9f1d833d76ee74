"""docs/guidance.png: what each guidance makes of the same seeds and classes of the packaged model.

python tools/show_guidance.py --out docs/guidance.png
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import kdiff
from kdiff.class_names import class_numbers
from kdiff.images import grid, to_uint8

CLASSES = "airplane,automobile,bird,cat,deer,dog,horse,ship"
NEGATIVE = "bird,truck,airplane,dog,horse,cat,deer,automobile"
SEEDS = range(8)
ZOOM, GAP, FONT, COLOURS = 2, 1, 13, 256


def warm(d: Tensor) -> Tensor:
    """A loss that is low for pictures that are more red than blue."""
    return (d[:, 2] - d[:, 0]).flatten(1).mean(1)


def rounded(model: Any, levels: int) -> Any:
    """The model with each matrix of weights rounded to that many levels on either side of 0."""
    worse = copy.deepcopy(model)
    for weights in worse.network.parameters():
        if weights.ndim > 1:
            step = weights.abs().max() / levels
            weights.data = (weights / step).round() * step
    return worse


@dataclass(frozen=True)
class Row:
    """What a row of pictures is made with: `guide` has texts, or functions from model to model,
    which `label` then says."""

    guide: Sequence[Any] = ()
    label: str = ""
    negative: bool = False
    sampler: str = "dpmpp_2m"
    steps: int = 10
    edits: Sequence[str] = ()

    def __str__(self) -> str:
        edits = [f"edit {one}" for one in self.edits]
        guides = self.label or "\n".join([*self.guide, *edits]) or "unguided"
        negative = "\nnegative class" if self.negative else ""
        usual = (self.sampler, self.steps) == (Row.sampler, Row.steps)
        return guides + negative + ("" if usual else f"\n{self.sampler}, {self.steps} steps")

    def pictures(self, model: Any, cond: Mapping[str, Any]) -> np.ndarray:
        for one in self.guide:
            model = one(model) if callable(one) else kdiff.guide(model, one)
        told = cond if self.negative else {"class_labels": cond["class_labels"]}
        images = kdiff.sample(
            model, self.sampler, steps=self.steps, edits=self.edits, seeds=SEEDS, cond=told
        )
        return grid(to_uint8(images), columns=len(SEEDS), gap=GAP)


def rows(worse: Any) -> list[Row]:
    autoguidance = partial(kdiff.guidance.autoguidance, model=worse, scale=2)
    loss = partial(kdiff.guidance.loss, function=warm, scale=20)
    ancestral: dict[str, Any] = {"sampler": "euler_ancestral", "steps": 40}
    return [
        Row(),
        Row(["cfg:scale=1.5"]),
        Row(["cfg:scale=3"]),
        Row(["cfg:scale=3"], negative=True),
        Row(["cfg:scale=3", "interval:low=0.3:high=3"]),
        Row(["cfg:scale=3", "rescale:phi=0.7"]),
        Row(["cfg:scale=10"]),
        Row(["cfg:scale=10", "threshold"]),
        Row(["cfg:scale=10", "dynamic_threshold"]),
        Row(["mimic:scale=10:mimic=3"]),
        Row(["apg:scale=10"]),
        Row(edits=["apg:scale=10"]),
        Row(edits=["apg:scale=10"], sampler="euler", steps=20),
        Row(["cfg_zero:scale=3"]),
        Row(["tcfg:scale=3"]),
        Row(["fdg:scales=4+2"]),
        Row(["magnitude_aware"]),
        Row(["perp_neg:scale=3"], negative=True),
        Row(["cfg_pp:scale=0.6"], sampler="euler", steps=30),
        Row([autoguidance], "autoguidance:scale=2\nmodel: weights rounded"),
        Row(["slg"]),
        Row(["pag"]),
        Row(["seg"]),
        Row(["classifier:scale=10"]),
        Row(**ancestral),
        Row(["classifier_mean_shift:scale=10"], **ancestral),
        Row([loss], "loss:scale=20\nfunction: blue - red"),
        Row(["eps_scaling:k=1.02"]),
    ]


def strip(labels: Sequence[str], pictures: Sequence[np.ndarray]) -> Image.Image:
    """Rows of pictures, each with its label on its left."""
    font = ImageFont.load_default(FONT)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox
    left = max(int(measure((0, 0), label, font=font)[2]) for label in labels) + 12
    height, width = (ZOOM * length for length in pictures[0].shape[:2])
    canvas = Image.new("RGB", (left + width, height * len(pictures)), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (label, picture) in enumerate(zip(labels, pictures, strict=True)):
        zoomed = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
        canvas.paste(zoomed, (left, i * height))
        place = (4, i * height + height // 2)
        draw.multiline_text(place, label, fill="black", font=font, anchor="lm")
    return canvas


@click.command()
@click.option("--model", "name", default="cifar10", show_default=True)
@click.option("--levels", default=32, show_default=True, help="Of the worse model's weights.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(name: str, levels: int, out: Path) -> None:
    """Write a strip of pictures: a row for each guidance, a column for each seed."""
    model = kdiff.load(name)
    cond = {
        "class_labels": torch.tensor(class_numbers(model, CLASSES)),
        "negative_class_labels": torch.tensor(class_numbers(model, NEGATIVE)),
    }
    shown = rows(rounded(model, levels))
    made = []
    for row in shown:
        made.append(row.pictures(model, cond))
        print(str(row).replace("\n", ", "), flush=True)
    picture = strip([str(row) for row in shown], made)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
