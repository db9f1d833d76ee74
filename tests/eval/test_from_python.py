"""From `kdiff.sample` to figures, and from other people's reference files."""

import json
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import kdiff
import toy_network
from kdiff.cli import main
from kdiff.eval import evaluate
from kdiff.eval.evaluation import METRICS
from kdiff.eval.features import FeatureNetwork, Features, feature_network
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.metrics import check_metrics
from kdiff.eval.metrics.frechet import Gaussian, frechet_distance
from kdiff.eval.references import Reference
from kdiff.files import user_path
from kdiff.images import to_uint8
from kdiff.samplers import UnknownName

REAL = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
MADE = np.random.default_rng(1).integers(0, 200, (40, 32, 32, 3), dtype=np.uint8)


def toy(images):
    pool, logits = toy_network.scored(images)
    return Features(np.float32(pool), np.float32(logits), np.float32(pool[:, :4] ** 2))


@pytest.fixture
def network():
    return FeatureNetwork("toy", None, "", toy)


def gaussian(rows):
    rows = rows.astype(np.float64)
    return Gaussian(rows.mean(0), np.cov(rows.T), len(rows))


@pytest.fixture
def reference():
    return Reference(name="r", gaussian=gaussian(toy(REAL).pool), n=60, features="toy", weights="")


def value(figures):
    (figure,) = figures.values()
    return figure.value


# What kdiff.sample returns


def test_samples_are_evaluated_as_their_pictures_are(network, reference):
    samples = kdiff.sample(kdiff.load(), "euler", steps=2, n=12)
    expected = evaluate(to_uint8(samples), reference, network=network)
    overshooting = samples * 1.2 / samples.abs().max()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in (samples, samples.double(), samples.numpy(), samples.clone().requires_grad_()):
            assert evaluate(form, reference, network=network) == expected
        assert evaluate(overshooting, reference, network=network) == evaluate(
            to_uint8(overshooting), reference, network=network
        )
    pictures = open_pictures(overshooting)
    everything = np.concatenate(list(pictures.batches(5, range(11, -1, -1))))
    np.testing.assert_array_equal(everything, to_uint8(overshooting)[::-1])


def test_one_channel_is_repeated_and_said(network, reference):
    samples = torch.linspace(-1, 1, 12 * 32 * 32).view(12, 1, 32, 32)
    with pytest.warns(UserWarning, match="greyscale"):
        found = evaluate(samples, reference, network=network)
    assert found == evaluate(to_uint8(samples).repeat(3, 3), reference, network=network)


def between(least, most, shape=(8, 3, 16, 16)):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator) * (most - least) + least


AMBIGUOUS = {
    "[0, 1]": (between(0, 1), "as if in [0, 1]: give 2 * x - 1"),
    "[0, 255]": (between(0, 255), "as if in [0, 255]: give x / 127.5 - 1"),
    "[0, 1] array": (between(0, 1).numpy(), "give 2 * x - 1"),
    "variance 1": (torch.randn(8, 3, 16, 16), "from -"),
    "[-3, 3]": (between(-3, 3), "kdiff.images.to_uint8(x)"),
    "[-255, 255]": (between(-255, 255), "bring them to [-1, 1]"),
    "NHWC": (between(-1, 1, (8, 16, 16, 3)), "x.permute(0, 3, 1, 2)"),
    "NHWC [0, 1]": (between(0, 1, (8, 16, 16, 3)).numpy(), "(0, 3, 1, 2)"),
    "latents": (between(-1, 1, (8, 4, 16, 16)), "model.decode(x)"),
    "one image": (between(-1, 1, (3, 16, 16)), "must be [N, C, H, W]"),
    "one of many": (between(-1, 1, (1, 3, 16, 16)), "just one image"),
    "none": (between(-1, 1, (0, 3, 16, 16)), "has no images"),
    "no pixels": (between(-1, 1, (3, 3, 0, 16)), "must be [N, C, H, W]"),
    "NaN": (torch.full((8, 3, 16, 16), torch.nan), "not finite"),
    "infinite": (between(-1, 1) / 0, "not finite"),
    "uint8 NCHW": (torch.zeros((8, 3, 16, 16), dtype=torch.uint8), "permute(0, 2, 3, 1)"),
    "uint8 grey": (np.zeros((8, 16, 16, 1), np.uint8), "np.repeat(x, 3, axis=3)"),
    "int64": (torch.zeros((8, 16, 16, 3), dtype=torch.int64), "not int64"),
    "complex": (torch.zeros((8, 3, 16, 16), dtype=torch.complex64), "not complex64"),
    "a list": ([between(-1, 1)], "not list"),
    "nothing": (None, "not NoneType"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_may_be_something_else_is_refused_with_the_conversion(case, network, reference):
    images, message = AMBIGUOUS[case]
    with pytest.raises(ValueError) as caught:
        evaluate(images, reference, network=network)
    line = str(caught.value)
    assert message in line and "\n" not in line and len(line) < 300


def test_the_conversions_give_the_same_figures(network, reference):
    x = between(-1, 1)
    expected = evaluate(x, reference, network=network)
    assert evaluate(2 * ((x + 1) / 2) - 1, reference, network=network) == expected
    nhwc = x.permute(0, 2, 3, 1)
    assert evaluate(nhwc.permute(0, 3, 1, 2), reference, network=network) == expected
    chosen = torch.from_numpy(to_uint8(x))  # a tensor of uint8, as an array
    assert evaluate(chosen, reference, network=network) == expected


# Metrics by name


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("FID", ["fid"]),
        ("fid, KID", ["fid", "kid"]),
        (["Fid", "fid", "SFID"], ["fid", "sfid"]),
        ("FID_inf", ["fid-inf"]),
        (("IS-guided-diffusion", "Inception Score"), ["is-guided-diffusion", "is"]),
        ("frechet_inception_distance", ["fid"]),
        ("Precision,Recall", ["precision", "recall"]),
        ([METRICS[name].label for name in METRICS], list(METRICS)),
    ],
)
def test_metrics_are_known_in_any_case_and_by_other_names(given, names):
    assert check_metrics(given) == names


def test_unknown_metrics_suggest_the_nearest(network, reference):
    with pytest.raises(UnknownName, match=r"unknown metric 'FIDD'; did you mean .*fid"):
        evaluate(MADE, reference, "FIDD", network=network)
    for none in ("", " , ", []):
        with pytest.raises(ValueError, match="at least one metric"):
            evaluate(MADE, reference, none, network=network)
    with pytest.raises(ValueError, match="metrics must be names"):
        evaluate(MADE, reference, [None], network=network)


def test_evaluate_takes_a_metric_in_any_case(network, reference):
    assert evaluate(MADE, reference, "FID", network=network) == evaluate(
        MADE, reference, ["fid"], network=network
    )


# Reference files of others


@pytest.fixture
def batch(tmp_path):
    """As guided-diffusion's: statistics of many images beside a part of them."""
    path = tmp_path / "VIRTUAL_toy_labeled.npz"
    all_, spatial = gaussian(toy(REAL).pool), gaussian(toy(REAL).spatial)
    statistics = {"mu": all_.mean, "sigma": all_.cov, "mu_s": spatial.mean, "sigma_s": spatial.cov}
    np.savez(path, arr_0=REAL[:30], arr_1=np.arange(30), **statistics)
    return path


def test_a_reference_batch_gives_all_five_figures(batch, network, tmp_path, monkeypatch):
    part, five = tmp_path / "part.npy", "fid,sfid,is-guided-diffusion,precision,recall"
    np.save(part, REAL[:30])
    np.save(tmp_path / "made.npy", MADE)
    monkeypatch.setattr("kdiff.cli.evaluating.feature_network", lambda *_, **__: network)
    arguments = ("--images", tmp_path / "made.npy", "--ref", batch, "--metrics", five, "--json")
    result = CliRunner().invoke(main, ["eval-fid", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    found = {k: v["value"] for k, v in json.loads(result.stdout)["metrics"].items()}
    made = toy(MADE)
    close = {"rel": 1e-6}
    assert found["FD (toy)"] == pytest.approx(
        frechet_distance(gaussian(toy(REAL).pool), gaussian(made.pool)), **close
    )
    assert found["sFD (toy)"] == pytest.approx(
        frechet_distance(gaussian(toy(REAL).spatial), gaussian(made.spatial)), **close
    )
    of_images = evaluate(MADE, part, ["precision", "recall", "kid"], network=network)
    assert found["precision (toy)"] == of_images["precision (toy)"].value
    assert found["recall (toy)"] == of_images["recall (toy)"].value
    assert "IS-guided-diffusion (toy)" in found and len(found) == 5
    with pytest.warns(UserWarning, match="does not record"):
        kid = evaluate(MADE, batch, "kid", network=network)
    assert value(kid) == of_images["KID (toy)"].value


def test_images_are_only_looked_at_if_a_metric_needs_them(batch, network):
    looked = []
    watching = FeatureNetwork("toy", None, "", lambda x: looked.append(len(x)) or toy(x))
    with pytest.warns(UserWarning, match="does not record"):
        evaluate(MADE, batch, "fid", network=watching)
    assert sum(looked) == 40


NAMES = {
    "pool_3": {"pool_3": np.zeros((9, 4))},
    "mean, cov": {"mean": np.zeros(4), "cov": np.eye(4)},
    "mu": {"mu": np.zeros(4)},
    "mu1, s1": {"mu1": np.zeros(4), "s1": np.eye(4)},
}


@pytest.mark.parametrize("found", NAMES)
def test_statistics_under_other_names_are_named(found, tmp_path, network):
    np.savez(tmp_path / "x.npz", **NAMES[found])
    with pytest.raises(ValueError, match=rf"x\.npz has {found}; statistics are a mean `mu` and"):
        evaluate(MADE, tmp_path / "x.npz", network=network)


@pytest.mark.parametrize("kind", ["meta", "sparse", "quantized"])
def test_a_tensor_that_holds_no_plain_values_is_refused(kind):
    samples = torch.rand(4, 3, 8, 8) * 2 - 1
    kinds = {
        "meta": lambda: samples.to("meta"),
        "sparse": samples.to_sparse,
        "quantized": lambda: torch.quantize_per_tensor(samples, 0.1, 0, torch.qint8),
    }
    with pytest.raises(ValueError, match=f"not a {kind} one"):
        open_pictures(kinds[kind]())


def test_samples_of_eight_bits():
    samples = (torch.rand(4, 3, 8, 8) * 2 - 1).to(torch.float8_e4m3fn)
    read = next(open_pictures(samples).batches(4))
    assert np.array_equal(read, to_uint8(samples.float()))


@pytest.mark.parametrize("name", [None, 5, b"x", ["a"], len])
def test_what_is_no_name_is_refused(name, network, reference):
    with pytest.raises(ValueError, match="a feature network is a name"):
        feature_network(name)
    with pytest.raises(ValueError, match=r"metrics must be names|unknown metric"):
        evaluate(MADE, reference, name, network=network)


# Empty arguments


EMPTY = [
    *(("eval-fid", option) for option in ("--images", "--ref", "--data", "--model", "--out")),
    *(("eval-fid", option) for option in ("--features", "--weights")),
    *(("sample", option) for option in ("--out", "--model", "--trajectory")),
    *(("sweep", option) for option in ("--out", "--file", "--model", "--ref")),
    *(("ref", "make", "name", "--images"), ("ref", "show"), ("ref", "show", "cifar10", "--npz")),
    *(("report",), ("report", ".", "--out"), ("inspect",), ("inspect", "cifar10", "--images")),
    *(("convert", "cifar10"), ("convert", "", "x.safetensors")),
]


@pytest.mark.parametrize("arguments", EMPTY, ids=" ".join)
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_argument_is_not_the_current_folder(arguments, empty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("0.npy", MADE)
    values = [empty] if "" not in arguments else []
    filled = [argument or empty for argument in arguments]
    result = CliRunner().invoke(main, [*filled, *values])
    assert result.exit_code == 2, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert "empty" in line or "takes one or more values" in line or "unknown feature" in line
    assert [p.name for p in tmp_path.iterdir()] == ["0.npy"]


@pytest.mark.parametrize("empty", ["", " ", "\t"])
def test_an_empty_path_in_python(empty, network, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = [
        lambda: evaluate(empty, reference, network=network),
        lambda: evaluate(MADE, empty, network=network),
        lambda: open_pictures("cifar10:test", empty),
        lambda: kdiff.load(empty),
        lambda: user_path(empty),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="empty"):
            call()
