"""References of a toy feature network, how tests find them, and how they are refused."""

import numpy as np
import pytest
from click.testing import CliRunner

from kdiff.cli.ref_command import command
from kdiff.eval.features import FeatureNetwork, Features
from kdiff.eval.metrics.frechet import Gaussian
from kdiff.eval.references import Reference, find_reference

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
PROJECTION = rng.normal(size=(192, 16)) / 1000
WEIGHTS = "0" * 64
PLUGIN = "toy_references:toy"


def toy(images):
    """A random projection of 8 x 8 pixels, as a plug-in."""
    small = images.reshape(len(images), 8, 4, 8, 4, 3).mean((2, 4)).reshape(len(images), -1)
    return (small @ PROJECTION).astype(np.float32)


toy.weights = WEIGHTS


def network(name="toy", resize=None, weights=WEIGHTS):
    return FeatureNetwork(
        name, resize, weights, lambda images: Features(toy(images), None, toy(images)[:, :5] ** 2)
    )


def gaussian(d=12, n=1000, seed=1):
    rows = np.random.default_rng(seed).gamma(0.5, 0.8, (n, d))
    return Gaussian(rows.mean(0), np.cov(rows, rowvar=False), n)


def reference(name="mine", **settings):
    label = {"n": 1000, "features": "inception", "resize": "clean", "weights": WEIGHTS}
    return Reference(**{"name": name, "gaussian": gaussian(), **label, **settings})


def find(text, features="inception", resize="clean"):
    return find_reference(str(text), features, resize)


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def cli(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments])


def refused_cli(*arguments):
    """The one line of an error with status 2."""
    result = cli(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("Error: ")]
    assert line == result.stderr.splitlines()[-1]
    return line
