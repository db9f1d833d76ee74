"""A network of random numbers, images that it may be checked on, and the command line."""

import numpy as np
from click.testing import CliRunner

from kdiff.cli import main

TINY = {"img_resolution": 8, "model_channels": 8, "num_blocks": 1, "channel_mult": [1, 2]}
MEAN, STD = 0.1, 0.3


def kdiff_cli(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def images(n=8):
    generator = np.random.default_rng(0)
    x = generator.normal(MEAN, STD, (n, 8, 8, 3))
    return np.clip(np.round(x * 127.5 + 127.5), 0, 255).astype(np.uint8)
