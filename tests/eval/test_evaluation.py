"""Images to figures: every metric against another library on the same features, and what must not
matter (batches, order, processes)."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

import toy_network
from kdiff.cli import main
from kdiff.eval.evaluation import METRICS, Collector, evaluate, stream
from kdiff.eval.features import FeatureNetwork, Features, feature_network
from kdiff.eval.images.arrays import from_npy
from kdiff.eval.references import load_reference, make_reference
from kdiff.samplers import UnknownName

ALL = [name for name in METRICS if name != "sfid"]  # the toy has no spatial features


def smooth_images(n, seed=0):
    """Coarse colours and some grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (n, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    return (coarse + rng.integers(0, 56, (n, 16, 16, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def network():
    return feature_network("toy_network:scored")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The images to judge, and those to compare them with."""
    folder = tmp_path_factory.mktemp("images")
    np.save(folder / "made.npy", smooth_images(1201))
    np.save(folder / "real.npy", smooth_images(1500, seed=1) // 2 + 60)
    return from_npy(folder / "made.npy"), from_npy(folder / "real.npy")


@pytest.fixture(scope="module")
def reference(sources, network):
    return make_reference("real", sources[1], network, rows=True)


def figures(source, network, reference, metrics=ALL, batch=64, order=None):
    collector = Collector(metrics, len(source), network, reference)
    if order is None:
        stream(source, batch, [collector.update])
    else:
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            collector.update(next(source.batches(batch, part)), part)
    return collector.figures()


def values(found):
    return {name: figure.value for name, figure in found.items()}


@pytest.fixture(scope="module")
def expected(sources, network, reference):
    """The figures in batches of 64, in order."""
    return figures(sources[0], network, reference)


def test_every_metric_is_torch_fidelitys(sources, network, expected):
    made, real = (network(next(s.batches(len(s)))) for s in sources)
    pool, real_pool, logits = (torch.from_numpy(a) for a in (made.pool, real.pool, made.logits))
    fid = fid_statistics_to_metric(
        *(fid_features_to_statistics(f.double()) for f in (pool, real_pool)), verbose=False
    )
    isc = isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)
    kid = kid_features_to_metric(
        *(pool.double(), real_pool.double()), **{"kid_subsets": 100, "kid_subset_size": 1000}
    )
    prc = prc_features_to_metric(pool.double(), real_pool.double(), verbose=False)
    found = {name.split(" (")[0]: f for name, f in expected.items()}
    assert found["FD"].value == pytest.approx(fid["frechet_inception_distance"], rel=1e-6)
    assert found["IS"].value == pytest.approx(isc["inception_score_mean"], rel=1e-6)
    assert found["IS"].error == pytest.approx(isc["inception_score_std"], rel=1e-5)
    assert found["KID"].value == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-6)
    assert found["KID"].error == pytest.approx(kid["kernel_inception_distance_std"], rel=1e-6)
    assert found["precision"].value == pytest.approx(prc["precision"], abs=1e-9)
    assert found["recall"].value == pytest.approx(prc["recall"], abs=1e-9)
    assert {f.n for f in found.values()} == {1201}


def test_evaluate_is_all_of_it(sources, network, reference, expected):
    images, real = (next(source.batches(len(source))) for source in sources)
    assert evaluate(images, reference, ALL, network=network) == expected
    assert evaluate(sources[0], reference, ["fid"], network=network).items() <= expected.items()
    with pytest.raises(ValueError, match=r"give x.permute\(0, 3, 1, 2\)"):
        evaluate(real / 255, reference, network=network)


def test_figures_carry_the_name_of_another_network(sources, network, reference):
    found = figures(sources[0], network, reference, ["fid", "is"])
    assert list(found) == ["FD (toy_network:scored)", "IS (toy_network:scored)"]


@pytest.mark.parametrize("batch", [1, 7, 1201])
def test_the_batch_does_not_matter(batch, sources, network, reference, expected):
    found = figures(sources[0], network, reference, batch=batch)
    assert values(found) == pytest.approx(values(expected), rel=1e-9)


def test_the_order_in_which_images_come_does_not_matter(sources, network, reference, expected):
    order = np.random.default_rng(0).permutation(1201).tolist()
    found = figures(sources[0], network, reference, order=order)
    assert values(found) == pytest.approx(values(expected), rel=1e-9)


def test_a_set_against_itself(sources, network):
    itself = make_reference("itself", sources[0], network, rows=True)
    found = values(figures(sources[0], network, itself))
    named = {name.split(" (")[0]: value for name, value in found.items()}
    trace = itself.cov.trace()
    assert named["FD"] == pytest.approx(0, abs=1e-9 * trace)
    assert (named["precision"], named["recall"], named["coverage"]) == (1, 1, 1)


def test_global_generators_are_left_alone(sources, network, reference):
    np.random.seed(5)
    torch.manual_seed(5)
    expected = np.random.random(), torch.rand(1)
    np.random.seed(5)
    torch.manual_seed(5)
    figures(sources[0], network, reference)
    assert (np.random.random(), torch.rand(1)) == expected


def test_sfid_takes_spatial_features(sources):
    """It is FID of the other features."""
    plain = feature_network("toy_network:features")
    both = FeatureNetwork(
        "both", None, "", lambda x: Features(x[:, 0, :3, 0] * 1.0, None, plain(x).pool)
    )
    real = make_reference("real", sources[1], both, spatial=True)
    expected = figures(sources[0], plain, make_reference("real", sources[1], plain), ["fid"])
    found = figures(sources[0], both, real, ["sfid"])
    assert found["sFD (both)"].value == pytest.approx(
        expected["FD (toy_network:features)"].value, rel=1e-9
    )


def test_what_is_missing_is_said(sources, network, reference):
    with pytest.raises(UnknownName, match="did you mean fid"):
        Collector(["fidd"], 10, network, reference)
    moments_only = make_reference("real", sources[1], network)
    with pytest.raises(ValueError, match=r"a covariance only; KID, .* need its images"):
        Collector(["kid"], 10, network, moments_only)
    with pytest.raises(ValueError, match="no spatial statistics, which sFID needs"):
        Collector(["sfid"], 10, network, reference)
    without_logits = feature_network("toy_network:features")
    with pytest.raises(ValueError, match="toy_network:features has no logits, which is needs"):
        figures(sources[0], without_logits, None, ["is"])


@pytest.fixture(scope="module")
def files(tmp_path_factory, sources, network):
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "made.npy", smooth_images(301))
    np.save(folder / "real.npy", smooth_images(400, seed=1))
    return folder


def kdiff(files, *arguments, monkeypatch):
    """kdiff's output."""
    monkeypatch.setenv("KDIFF_HOME", str(files))
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def kdiff_by_two(files, *arguments):
    """What the first of two processes under gloo prints; the other must print nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.path.dirname(toy_network.__file__),
        **{"KDIFF_HOME": str(files), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "kdiff", *map(str, arguments)],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[1][0] == ""
    return outputs[0][0]


def test_two_processes_give_the_figures_of_one(files, monkeypatch):
    """Of images against images: both make the reference."""
    metrics = "fid,fid-inf,is,kid,precision,recall,density,coverage"
    words = (
        *("eval-fid", "--json", "--images", files / "made.npy", "--ref", files / "real.npy"),
        *("--features", "toy_network:scored", "--batch", 32, "--metrics", metrics),
    )
    one = json.loads(kdiff(files, *words, monkeypatch=monkeypatch))
    two = json.loads(kdiff_by_two(files, *words))
    assert one["metrics"]["FD (toy_network:scored)"]["n"] == 301
    assert two["metrics"].keys() == one["metrics"].keys() and len(one["metrics"]) == 8
    for name, figure in two["metrics"].items():
        alone = one["metrics"][name]
        assert figure["value"] == pytest.approx(alone["value"], rel=1e-9), name
        assert (figure["error"] is None) == (alone["error"] is None)
        assert (figure["error"] or 0) == pytest.approx(alone["error"] or 0, rel=1e-9), name


def test_two_processes_make_the_reference_of_one(files, monkeypatch):
    """Up to the rounding of sums, which the file has in float32."""
    make = (
        *("ref", "make", "real", "--images", files / "real.npy", "--batch", 32),
        *("--features", "toy_network:scored", "--out"),
    )
    kdiff(files, *make, files / "one.safetensors", monkeypatch=monkeypatch)
    assert "real: 400 images" in kdiff_by_two(files, *make, files / "two.safetensors")
    one, two = (load_reference(files / f"{name}.safetensors") for name in ("one", "two"))
    assert asdict(two.label) == {**asdict(one.label), "created": two.created}
    images = next(from_npy(files / "real.npy").batches(400))
    rows = toy_network.features(images).astype("f4").astype("f8")
    for made in (one, two):
        np.testing.assert_allclose(made.mean, rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(made.cov, np.cov(rows.T), rtol=1e-6, atol=1e-9)
