"""Feature functions that other people wrote, with the mistakes that people make."""

import sys
import types

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from kdiff.cli import main
from kdiff.eval import Features, evaluate
from kdiff.eval.features import FEATURES, feature_network, feature_networks
from kdiff.eval.metrics.frechet import Gaussian
from kdiff.eval.references import Reference
from kdiff.samplers import UnknownName

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)
MEANS = IMAGES.mean((1, 2))


@pytest.fixture
def network(monkeypatch):
    def named(function):
        module = types.ModuleType("theirs")
        module.function = function
        monkeypatch.setitem(sys.modules, "theirs", module)
        return feature_network("theirs:function")

    return named


def parameter(images):
    return torch.nn.Parameter(torch.tensor(images.mean((1, 2))))


RIGHT = {
    "array": lambda images: images.mean((1, 2)),
    "list": lambda images: images.mean((1, 2)).tolist(),
    "tensor": lambda images: torch.tensor(images.mean((1, 2))),
    "tensor with gradients": parameter,
    "features and logits": lambda images: (parameter(images), parameter(images)),
    "Features": lambda images: Features(images.mean((1, 2))),
    "bfloat16": lambda images: torch.tensor(images.mean((1, 2))).bfloat16(),
    "whole numbers": lambda images: images.mean((1, 2)).astype(int),
}


@pytest.mark.parametrize("case", RIGHT)
def test_whatever_holds_rows_of_numbers_is_taken(case, network):
    features = network(RIGHT[case])(IMAGES)
    assert features.pool.dtype == np.float32
    tolerance = {"bfloat16": 0.5, "whole numbers": 1}.get(case, 1e-4)
    np.testing.assert_allclose(features.pool, MEANS, atol=tolerance)
    assert (features.logits is not None) == (case == "features and logits")


def broken(images):
    return {}["no such key"]


WRONG = {
    "one number an image": (lambda x: x.mean((1, 2, 3)), "features [10] for 10 images"),
    "nothing": (lambda x: None, "features of type NoneType"),
    "too few rows": (lambda x: x.mean((1, 2))[:7], "features [7, 3] for 10 images"),
    "too many rows": (lambda x: np.repeat(x.mean((1, 2)), 2, 0), "[20, 3] for 10 images"),
    "maps": (lambda x: x, "features [10, 6, 5, 3] for 10 images"),
    "text": (lambda x: np.full((10, 3), "a"), "not an array of numbers"),
    "objects": (lambda x: np.full((10, 3), None), "not an array of numbers"),
    "complex": (lambda x: x.mean((1, 2)) + 0j, "not an array of numbers"),
    "ragged": (lambda x: [[1.0]] * 9 + [[1.0, 2.0]], "not an array of numbers"),
    "a dictionary": (lambda x: {"pool": x}, "features of type dict"),
    "NaN": (lambda x: x.mean((1, 2)) * np.nan, "features that are not finite"),
    "too large": (lambda x: x.mean((1, 2)) * 1e300, "features that are not finite"),
    "no columns": (lambda x: np.zeros((10, 0)), "features [10, 0]"),
    "millions": (lambda x: np.zeros((10, 10**6), np.int8), "D at most 32,768"),
    "NaN logits": (lambda x: (x.mean((1, 2)), np.full((10, 4), np.nan)), "logits that are not"),
    "logits of some": (lambda x: (x.mean((1, 2)), np.zeros((4, 4))), "logits [4, 4]"),
    "four answers": (lambda x: (x, x, x, x), "a tuple of 4"),
    "an error": (broken, "failed: KeyError: 'no such key'"),
    "an exit": (lambda x: sys.exit(0), "failed: SystemExit: 0"),
    "another error": (lambda x: 1 / 0, "failed: ZeroDivisionError"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_one_line(case, network):
    function, message = WRONG[case]
    with pytest.raises(ValueError) as caught:
        network(function)(IMAGES)
    line = str(caught.value)
    assert line.startswith("feature network theirs:function ") and message in line
    assert "\n" not in line and len(line) < 400


def test_a_width_that_changes_between_batches(network):
    reference = Reference(name="r", gaussian=Gaussian(np.zeros(4), np.eye(4)), n=10)
    changing = network(lambda images: np.ones((len(images), len(images)), dtype=np.float32))
    with pytest.raises(ValueError, match=r"features \[2, 2\], after 4 an image"):
        evaluate(IMAGES, reference, "fid", network=changing, batch=4)


MODULES = {
    "a syntax error": ("def mean(images:\n", "mean", "cannot be imported: SyntaxError:"),
    "an error": ("1 / 0\n", "mean", "cannot be imported: ZeroDivisionError: division by zero"),
    "an exit": ("raise SystemExit(3)\n", "mean", "cannot be imported: SystemExit: 3"),
    "a missing import": ("import no_such_module\n", "mean", "No module named 'no_such_module'"),
    "no such function": ("x = 1\n", "mean", "has no attribute 'mean'"),
    "no function": ("mean = 3\n", "mean", "is int, not a function"),
    "no name": ("x = 1\n", "", "has no attribute ''"),
    "weights that are no hash": (
        "def mean(images): return images\nmean.weights = 3\n",
        "mean",
        "`weights` must be text",
    ),
}


@pytest.mark.parametrize("case", MODULES)
def test_a_broken_module_is_one_line(case, tmp_path, monkeypatch):
    source, function, message = MODULES[case]
    name = f"broken_{list(MODULES).index(case)}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["eval-fid", "--features", f"{name}:{function}"])
    assert result.exit_code == 2, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ") and message in line and name in line


@pytest.mark.parametrize("name", [":f", ".m:f", "a b:f", "m/n.py:f"])
def test_names_of_no_module(name):
    with pytest.raises(ValueError, match="feature network '") as caught:
        feature_network(name)
    assert "\n" not in str(caught.value)


# Names


def test_own_names_are_known_in_any_case():
    assert feature_network("CIFAR10 classifier").name == "cifar10-classifier"


def test_plugins_are_listed_without_being_imported_and_only_the_chosen_one_is(
    tmp_path, monkeypatch
):
    (tmp_path / "kdiff_good.py").write_text("def means(images): return images.mean((1, 2))\n")
    (tmp_path / "kdiff_bad.py").write_text("1 / 0\n")
    info = tmp_path / "kdiff_nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kdiff-nets\nVersion: 1.0\n")
    points = "[kdiff.features]\ngood_net = kdiff_good:means\nbad_net = kdiff_bad:means\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        listed = feature_networks()
        assert listed["good_net"] == "kdiff_good:means" and listed["bad_net"] == "kdiff_bad:means"
        with pytest.raises(UnknownName, match="did you mean good_net"):
            feature_network("good_nett")
        assert not {"kdiff_good", "kdiff_bad"} & sys.modules.keys()
        network = feature_network("good_net")
        assert network.name == "good_net" and network(IMAGES).pool.shape == (10, 3)
        assert "kdiff_bad" not in sys.modules
        with pytest.raises(ValueError, match="'bad_net' cannot be imported: ZeroDivisionError"):
            feature_network("bad_net")
        with pytest.raises(ValueError, match="are for inception, not for good_net"):
            feature_network("good_net", resize="clean")
    finally:
        for name in ("good_net", "bad_net"):
            FEATURES.pop(name, None)
