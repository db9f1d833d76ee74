"""Sweeps of a tiny network, in this process or another."""

import json
import os

import numpy as np

from places import SUPPORT

NETWORK = {"img_resolution": 8, "model_channels": 16, "channel_mult": [1], "num_blocks": 1}
TOY = "small_sweeps:toy_features"
STEPS = 24  # of the converged solution: enough for this network, and much sooner there
COMMAND = (
    f"import kdiff.eval.sweep.converged_solution as c; c.STEPS = {STEPS}; "
    "from kdiff.cli import main; main()"
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SUPPORT)}


def toy_features(images):
    """Means and spreads of the four quarters of each channel: `[N, 24]`."""
    n, side = len(images), images.shape[1] // 2
    quarters = images.reshape(n, 2, side, 2, side, 3).astype(np.float32) / 255
    parts = [quarters.mean((2, 4)), quarters.std((2, 4))]
    return np.concatenate([part.reshape(n, -1) for part in parts], axis=1)


def few_features(images):
    """Half of the toy features, and logits."""
    return toy_features(images)[:, :12], toy_features(images)[:, :3]


def lines(folder):
    found = [json.loads(x) for p in folder.glob("cells*.jsonl") for x in p.read_text().splitlines()]
    assert len({line["key"] for line in found}) == len(found)
    return {line["key"]: line for line in found}


def results(folder):
    """All that must not depend on when or where a cell was computed."""
    found = {}
    for key, line in lines(folder).items():
        metrics = {name: m for name, m in line["metrics"].items() if name != "seconds"}
        picture = (folder / line["grid"]).read_bytes()
        found[key] = (line["cell"], line["status"], metrics, line["noise_floor"], picture)
    return found


RMSE = ("--metrics", "rmse")
SMALL = ("--sampler", "euler,heun,euler_ancestral", "--steps", "2,4", *RMSE)
