"""Small runs of the command line with guidance."""

import json

import numpy as np
from PIL import Image

from tiny_models import kdiff_cli


def few(model, out):
    return ("--model", model, "--sampler", "euler", "--steps", 2, "--num", 4, "--out", out)


def sample(model, out, *words):
    """The record of a run, and its pictures."""
    result = kdiff_cli("sample", *few(model, out), *words)
    assert result.exit_code == 0, result.output
    files = sorted(out.glob("[0-9]*.png"))
    return json.loads((out / "run.json").read_text()), np.stack([Image.open(f) for f in files])
