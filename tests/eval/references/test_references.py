"""Reference statistics: kdiff's files and other libraries', names, and `kdiff ref`."""

import io
import json
import pickle
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file, save_file

from kdiff.cli.ref_command import command
from kdiff.eval.evaluation import reference_for
from kdiff.eval.features import FeatureNetwork, Features
from kdiff.eval.images.pictures import Pictures, open_pictures
from kdiff.eval.metrics.frechet import Gaussian, frechet_distance
from kdiff.eval.references import (
    FORMAT,
    Reference,
    check_comparable,
    find_reference,
    load_label,
    load_reference,
    make_reference,
    save_reference,
    stored,
    stored_references,
)
from kdiff.eval.references import foreign as foreign_statistics

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
PROJECTION = rng.normal(size=(192, 16)) / 1000
WEIGHTS = "0" * 64
PLUGIN = "test_eval_references:toy"


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


@pytest.fixture(autouse=True)
def packaged(tmp_path, monkeypatch):
    """No references but the tests' own; none yet. Nobody's data folder is touched."""
    monkeypatch.setitem(sys.modules, PLUGIN.partition(":")[0], sys.modules[__name__])
    monkeypatch.setenv("KDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(stored, "PACKAGED", tmp_path / "packaged")
    (tmp_path / "packaged").mkdir()
    return tmp_path / "packaged"


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


# Our file


def test_a_file_is_a_mean_and_a_triangle_and_a_label(tmp_path):
    saved = reference(spatial=gaussian(5, seed=2), source='a: "b", c', created="2026-11-21")
    save_reference(saved, tmp_path / "x.safetensors")
    tensors = load_file(tmp_path / "x.safetensors")
    assert {k: (v.dtype, v.shape) for k, v in tensors.items()} == {
        "mean": (np.float32, (12,)),
        "cov": (np.float32, (78,)),
        "spatial_mean": (np.float32, (5,)),
        "spatial_cov": (np.float32, (15,)),
    }
    rows = [saved.cov[i, j] for i in range(12) for j in range(i, 12)]
    np.testing.assert_array_equal(tensors["cov"], np.float32(rows))
    loaded = load_reference(tmp_path / "x.safetensors")
    assert vars(loaded.label) == vars(saved.label) == vars(load_label(tmp_path / "x.safetensors"))
    for a, b in [(loaded.gaussian, saved.gaussian), (loaded.spatial_gaussian, saved.spatial)]:
        np.testing.assert_allclose(a.mean, b.mean, rtol=2**-24)
        np.testing.assert_allclose(a.cov, b.cov, rtol=2**-24)
        np.testing.assert_array_equal(a.cov, a.cov.T)
        assert a.cov.dtype == np.float64 and a.n == 1000
    assert loaded.sha256 == saved.sha256 and len(saved.sha256) == 64
    assert loaded.record() == {"name": "mine", "n": 1000, "sha256": saved.sha256}


def test_the_hash_is_of_the_statistics():
    other = Gaussian(gaussian().mean, gaussian().cov * 1.000001, 1000)
    hashes = {
        reference().sha256,
        reference(gaussian=other).sha256,
        reference(spatial=gaussian(5)).sha256,
    }
    assert len(hashes) == 3
    assert reference("yours", weights=None).sha256 == reference().sha256


def test_float32_hardly_moves_a_distance_and_the_file_is_small(tmp_path):
    save_reference(reference(gaussian=gaussian(256, 600)), tmp_path / "a.safetensors")
    loaded = load_reference(tmp_path / "a.safetensors")
    other = gaussian(256, 900, seed=5)
    exact = frechet_distance(gaussian(256, 600), other)
    assert exact > 1
    assert frechet_distance(loaded.gaussian, other) == pytest.approx(exact, rel=3e-8)
    inception = Gaussian(np.zeros(2048), np.eye(2048), 50_000)
    save_reference(reference(gaussian=inception), tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").stat().st_size < 8.42e6


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_reference(reference(), path)
    whole = path.read_bytes()
    for length in (4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(lambda: find(path), "not a whole safetensors file")
    tensors = {"mean": np.zeros(3, np.float32), "cov": np.zeros(6, np.float32)}

    def case(tensors, *parts, **metadata):
        good = {"format": FORMAT, "label": json.dumps({"name": "a"})}
        save_file(tensors, path, {**good, **metadata})
        refused(lambda: find(path), "x.safetensors", *parts)

    case(tensors, "not a kdiff-reference/1", format="kdiff/1")
    case(tensors, "label", label="{")
    case(tensors, "label", label="[1]")
    case(tensors, "label", label='{"name": "a", "surprise": 1}')
    case(tensors, "wrong types", label='{"name": "a", "n": "many"}')
    case({"mean": tensors["mean"]}, "has no 'cov'")
    case({**tensors, "cov": np.zeros(7, np.float32)}, "do not fit")
    case({**tensors, "mean": np.float32([0, np.nan, 0])}, "not finite")
    case({**tensors, "mean": np.zeros(3, np.int32)}, "not arrays of floats")
    case({**tensors, "spatial_mean": tensors["mean"]}, "has no 'spatial_cov'")


def test_what_a_reference_lacks_is_said():
    refused(lambda: reference().spatial_gaussian, "no spatial statistics", "--spatial")
    refused(lambda: reference().rows, "mean and a covariance only", "KID")


# Names


def test_a_name_is_found_for_its_network_and_mode(tmp_path, packaged):
    own = tmp_path / "home" / "references"
    own.mkdir(parents=True)
    save_reference(reference("cifar10"), packaged / "cifar10-inception-clean.safetensors")
    legacy = reference("cifar10", resize="legacy_tensorflow", gaussian=gaussian(seed=7))
    save_reference(legacy, packaged / "cifar10-inception-legacy_tensorflow.safetensors")
    save_reference(reference("cifar10", features="toy", resize=None), own / "b.safetensors")
    assert [path.name for path in stored_references()] == [
        "cifar10-inception-clean.safetensors",
        "cifar10-inception-legacy_tensorflow.safetensors",
        "b.safetensors",
    ]
    assert find("cifar10").resize == "clean"
    assert find("cifar10", resize="legacy_tensorflow").sha256 == legacy.sha256
    assert find("cifar10", "toy", None).features == "toy"
    there = "inception (clean), inception (legacy_tensorflow), toy"
    refused(lambda: find("cifar10", resize="legacy_pytorch"), there, "inception (legacy_pytorch)")
    (own / "broken.safetensors").write_bytes(b"1")  # which does not stand in the way of others
    assert find("cifar10").resize == "clean"  # a packaged one, for which nobody looks there
    with pytest.warns(UserWarning, match=r"passed over: .*broken.safetensors"):
        assert find("cifar10", "toy", None).features == "toy"


def test_a_name_is_never_a_folder(packaged, tmp_path, monkeypatch):
    """So what a record calls cifar10 is one set of images."""
    monkeypatch.chdir(tmp_path)
    Path("cifar10").mkdir()
    for i in range(2):
        Image.fromarray(IMAGES[i]).save(f"cifar10/{i}.png")
    assert find("cifar10").name == "cifar10"  # a folder, as long as there is no such name
    save_reference(reference("cifar10"), packaged / "cifar10-inception-clean.safetensors")
    with pytest.warns(UserWarning, match=r"^cifar10 is a reference's name: .* say \./cifar10$"):
        assert find("cifar10").n == 1000
    assert (find("./cifar10").name, find("./cifar10").n) == ("./cifar10", 2)
    assert reference_for(Path("cifar10"), network(), ["fid"]).name == "./cifar10"


def test_a_misspelt_name_suggests_the_nearest(packaged):
    save_reference(reference("cifar10"), packaged / "a.safetensors")
    save_reference(reference("ffhq-64"), packaged / "b.safetensors")
    refused(lambda: find("cifar-10"), "no reference 'cifar-10'", "did you mean cifar10")
    refused(lambda: find("FFHQ64"), "did you mean ffhq-64?")
    refused(lambda: find("zzz"), "neither a name nor a file", "kdiff ref list")
    refused(lambda: find("nowhere/x.npz"), "no reference 'nowhere/x.npz'")


# The files of others


def test_npz_with_mu_and_sigma(tmp_path):
    g, s = gaussian(), gaussian(5)
    np.savez(tmp_path / "edm.npz", mu=g.mean, sigma=g.cov)
    found = find(tmp_path / "edm.npz")
    np.testing.assert_array_equal(found.mean, g.mean)
    np.testing.assert_array_equal(found.cov, g.cov)
    assert (found.n, found.features, found.resize, found.weights) == (None, None, None, None)
    assert found.spatial is None and found.name == "edm.npz"
    # guided-diffusion's, which has images and float32 beside
    np.savez(tmp_path / "g.npz", arr_0=IMAGES, mu=np.float32(g.mean), sigma=np.float32(g.cov),
             mu_s=s.mean, sigma_s=s.cov)  # fmt: skip
    found = find(tmp_path / "g.npz")
    np.testing.assert_array_equal(found.spatial_gaussian.cov, s.cov)
    assert found.cov.dtype == np.float64


def test_npz_of_other_shapes_is_refused(tmp_path):
    path, g = tmp_path / "x.npz", gaussian()

    def case(mu, sigma, part):
        np.savez(path, mu=mu, sigma=sigma)
        refused(lambda: find(path), "x.npz", part)

    case(g.mean, g.cov[:5], "[12] and [5, 12]")
    case(g.mean[None], g.cov, "[1, 12]")
    case(g.mean, np.where(g.cov > g.cov.max() / 2, np.nan, g.cov), "not finite")
    case(g.mean, g.cov + np.triu(g.cov), "not symmetric")
    case(g.mean.astype(complex), g.cov, "not arrays of floats")
    case(np.zeros(0), np.zeros((0, 0)), "not arrays of floats")
    np.savez(path, mu=g.mean)
    refused(lambda: find(path), "x.npz")
    np.savez(path, mu=g.mean, sigma=g.cov)
    whole = path.read_bytes()
    for length in (10, 500, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(lambda: find(path), "x.npz cannot be read")


class Bomb:
    """Writes a file if it is ever unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_no_pickle_is_ever_opened(tmp_path):
    trace = tmp_path / "it ran"
    bomb = pickle.dumps({"mu": Bomb(trace), "sigma": Bomb(trace)})
    np.savez(tmp_path / "objects.npz", mu=np.array([Bomb(trace)], object), sigma=np.zeros((1, 1)))
    (tmp_path / "bare.npz").write_bytes(bomb)
    (tmp_path / "edm.pkl").write_bytes(bomb)
    refused(lambda: find(tmp_path / "objects.npz"), "objects.npz holds pickled Python objects")
    refused(lambda: find(tmp_path / "bare.npz"), "bare.npz cannot be read")
    refused(lambda: find(tmp_path / "edm.pkl"), "is a pickle", "np.savez", "mu=s['mu']")
    assert not trace.exists()
    np.load(tmp_path / "objects.npz", allow_pickle=True)["mu"]
    assert trace.exists()  # so it would have been seen


def test_the_conversion_that_is_suggested_for_pickles_works(tmp_path, monkeypatch):
    g = gaussian()
    for content in ({"mu": g.mean, "sigma": g.cov}, {"fid": {"mu": g.mean, "sigma": g.cov}}):
        (tmp_path / "edm.pkl").write_bytes(pickle.dumps(content))
        message = refused(lambda: find(tmp_path / "edm.pkl"))
        code = message.split("if you trust it: ")[1]
        monkeypatch.chdir(tmp_path)
        exec(code, {"pickle": pickle, "np": np, "FILE": "edm.pkl"})
        np.testing.assert_array_equal(find("stats.npz").cov, g.cov)


# clean-fid's by name


class Server:
    """clean-fid's site as far as these tests need it: path -> bytes."""

    def __init__(self):
        self.files, self.asked = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                body = outer.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", "999999")  # more than comes
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/stats/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def site(monkeypatch, tmp_path):
    server = Server()
    monkeypatch.setattr(foreign_statistics, "CLEAN_FID_URL", server.url)
    (tmp_path / "cleanfid").mkdir()
    (tmp_path / "cleanfid" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "cleanfid", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield server
    server.server.shutdown()
    server.server.server_close()


def statistics_file():
    stream = io.BytesIO()
    np.savez_compressed(stream, mu=gaussian().mean, sigma=gaussian().cov)
    return stream.getvalue()


def test_clean_fid_names_are_downloaded_once_whole(tmp_path, site):
    site.files["/stats/lsun_church_clean_trainfull_256.npz"] = statistics_file()
    for _ in range(2):
        found = find("clean-fid:lsun_church-trainfull-256")
        np.testing.assert_array_equal(found.cov, gaussian().cov)
    assert site.asked == ["/stats/lsun_church_clean_trainfull_256.npz"]
    assert (found.features, found.resize, found.weights) == ("inception", "clean", None)
    kept = list((tmp_path / "home" / "clean-fid").iterdir())
    assert [path.name for path in kept] == ["lsun_church_clean_trainfull_256.npz"]


def test_half_a_download_is_not_kept(tmp_path, site):
    for body in (statistics_file()[:-500], b"<html>", b""):
        site.files["/stats/cifar10_legacy_tensorflow_train_32.npz"] = body
        refused(
            lambda: find("clean-fid:cifar10-train-32", resize="legacy_tensorflow"),
            "could not be downloaded (it came incomplete)",
            "put it into",
        )
        assert [p for p in (tmp_path / "home").rglob("*") if p.is_file()] == []


def test_no_network_is_one_line_and_leaves_nothing(tmp_path, site):
    refused(lambda: find("clean-fid:cifar10-train-33"), "no statistics cifar10_clean_train_33.npz")
    site.server.shutdown()
    site.server.server_close()
    message = refused(lambda: find("clean-fid:cifar10-train-32"), "could not be downloaded")
    assert str(tmp_path / "home" / "clean-fid") in message
    assert not (tmp_path / "home").exists()


def test_clean_fids_own_folder_and_custom_statistics(tmp_path, site):
    stats = tmp_path / "cleanfid" / "stats"
    stats.mkdir()
    for file in ("cifar10_clean_train_32.npz", "mine_clean_custom_na.npz"):
        (stats / file).write_bytes(statistics_file())
    assert find("clean-fid:cifar10_train_32").source == str(stats / "cifar10_clean_train_32.npz")
    assert find("clean-fid:Mine").source == str(stats / "mine_clean_custom_na.npz")
    refused(lambda: find("clean-fid:other"), "no statistics other_clean_custom_na.npz")
    refused(lambda: find("clean-fid:../../x"), "named as clean-fid:cifar10-train-32")
    refused(lambda: find("clean-fid:cifar10-train-32", "toy", None), "for inception, not for toy")
    assert site.asked == []


# Images


def test_images_are_returned_as_images(tmp_path):
    np.savez(tmp_path / "x.npz", IMAGES)
    found = find(tmp_path / "x.npz")
    assert isinstance(found, Pictures) and len(found) == 40
    assert isinstance(find(f"{tmp_path / 'x.npz'}:arr_0"), Pictures)
    (tmp_path / "empty").mkdir()
    refused(lambda: find(tmp_path / "empty"), "has no images")


def test_made_statistics_are_those_of_the_features(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    pictures, told = open_pictures(tmp_path / "x.npy"), []
    made = make_reference("mine", pictures, network(), 7, told.append, spatial=True, rows=True)
    rows = toy(IMAGES).astype(np.float64)
    np.testing.assert_allclose(made.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(made.cov, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-15)
    squares = toy(IMAGES)[:, :5].astype(np.float32) ** 2
    np.testing.assert_allclose(
        made.spatial_gaussian.cov, np.cov(squares.astype(np.float64), rowvar=False), rtol=1e-9
    )
    np.testing.assert_array_equal(made.rows, toy(IMAGES))
    assert told == [7, 7, 7, 7, 7, 5]
    assert (made.n, made.gaussian.n, made.features, made.resize) == (40, 40, "toy", None)
    assert made.weights == WEIGHTS and made.source.endswith("x.npy") and made.created
    bare = FeatureNetwork("bare", None, "", lambda images: Features(toy(images)))
    refused(lambda: make_reference("a", pictures, bare, spatial=True), "no spatial features")


# Comparing


def test_other_networks_modes_and_weights_are_refused():
    inception = network("inception", "clean")
    assert check_comparable(reference(), inception) == []
    other = reference(resize="legacy_tensorflow")
    refused(lambda: check_comparable(other, inception), "resize mode legacy_tensorflow", "clean")
    refused(lambda: check_comparable(reference(weights="f" * 64), inception), "weights fff")
    refused(lambda: check_comparable(reference(), network()), "feature network inception", "toy")
    toys = reference(features="toy", resize=None)
    assert check_comparable(toys, network()) == []


def test_what_is_unknown_is_assumed_and_said(tmp_path):
    np.savez(tmp_path / "x.npz", mu=gaussian().mean, sigma=gaussian().cov)
    (warning,) = check_comparable(find(tmp_path / "x.npz"), network("inception", "clean"))
    assert warning == (
        "x.npz does not record its feature network, resize mode, weights, number of images: "
        "taken as inception (clean)"
    )
    (warning,) = check_comparable(reference(weights=None), network("inception", "clean"))
    assert "does not record its weights:" in warning


# kdiff ref


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    return tmp_path / "images.npy"


def test_make_list_and_show(tmp_path, images):
    assert cli("list").output.split() == ["name", "N", "resize", "features", "weights", "where"]
    result = cli("make", "mine", "--images", images, "--features", PLUGIN)
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "home" / "references").iterdir()
    assert file.name == "mine-test_eval_references_toy.safetensors"
    assert str(file) in result.stdout
    row = cli("list").output.splitlines()[1].split()
    assert row[:5] == ["mine", "40", "-", PLUGIN, WEIGHTS[:12]]
    (listed,) = json.loads(cli("list", "--json").output)
    assert listed["n"] == 40 and listed["file"] == str(file) and listed["source"] == str(images)
    shown = cli("show", "mine", "--features", PLUGIN)
    assert shown.exit_code == 0 and "40" in shown.output and PLUGIN in shown.output
    record = json.loads(cli("show", "mine", "--features", PLUGIN, "--json").output)
    rows = toy(IMAGES).astype(np.float64)
    assert record["trace"] == pytest.approx(rows.var(0, ddof=1).sum(), rel=1e-6)
    assert record["dimensions"] == 16 and record["spatial"] is False


def test_show_writes_what_pytorch_fid_reads(tmp_path, images):
    out = tmp_path / "a" / "own.safetensors"
    assert cli("make", "x", "--images", images, "--features", PLUGIN, "--out", out).exit_code == 0
    assert not (tmp_path / "home").exists()
    for npz in (tmp_path / "stats.npz", tmp_path / "stats"):
        result = cli("show", out, "--features", PLUGIN, "--npz", npz)
        assert result.exit_code == 0, result.output
        with np.load(npz) as file:  # as pytorch-fid does
            mu, sigma = file["mu"][:], file["sigma"][:]
            assert file.files == ["mu", "sigma"]
        assert mu.dtype == sigma.dtype == np.float64
        rows = toy(IMAGES).astype(np.float64)
        np.testing.assert_allclose(mu, rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(sigma, np.cov(rows, rowvar=False), rtol=1e-6, atol=1e-9)
    again = find(tmp_path / "stats.npz")
    assert again.sha256 == load_reference(out).sha256
    assert "stats.npz exists" in refused_cli("show", out, "--npz", tmp_path / "stats.npz")
    overwritten = cli("show", out, "--npz", tmp_path / "stats.npz", "--overwrite")
    assert overwritten.exit_code == 0


def test_show_writes_spatial_statistics_as_guided_diffusion_names_them(tmp_path):
    save_reference(reference(spatial=gaussian(5)), tmp_path / "x.safetensors")
    assert cli("show", tmp_path / "x.safetensors", "--npz", tmp_path / "x.npz").exit_code == 0
    assert find(tmp_path / "x.npz").sha256 == find(tmp_path / "x.safetensors").sha256


def test_bad_input_is_one_line_with_status_2_and_writes_nothing(tmp_path, images, packaged):
    save_reference(reference("taken"), packaged / "taken-inception-clean.safetensors")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    toys = ("--features", PLUGIN)

    def case(part, *arguments):
        line = refused_cli(*arguments)
        assert part in line
        assert sorted(tmp_path.rglob("*")) == before

    case("has no images", "make", "x", "--images", tmp_path / "empty", *toys)
    case("no folder or file", "make", "x", "--images", tmp_path / "nowhere", *toys)
    case("letters, digits", "make", "../x", "--images", images, *toys)
    case("letters, digits", "make", "", "--images", images, *toys)
    case("comes with kdiff", "make", "taken", "--images", images, "--resize", "clean")
    case("--batch must be", "make", "x", "--images", images, "--batch", 0, *toys)
    case("writes a .safetensors", "make", "x", "--images", images, "--out", images, *toys)
    inside = images / "x.safetensors"
    case("cannot write into", "make", "x", "--images", images, "--out", inside, *toys)
    case("no device 'toaster'", "make", "x", "--images", images, "--device", "toaster", *toys)
    case("did you mean inception", "make", "x", "--images", images, "--features", "inceptoin")
    case("'--images'", "make", "x")
    case("did you mean taken", "show", "takn")
    case("is there for inception (clean)", "show", "taken")
    case("is images, not statistics", "show", images)
    case("cannot write into", "show", "taken", "--resize", "clean", "--npz", images / "x.npz")


def test_a_name_is_made_again_only_with_overwrite(images):
    arguments = ("make", "mine", "--images", images, "--features", PLUGIN)
    assert cli(*arguments).exit_code == 0
    assert "exists; choose another name, or add --overwrite" in refused_cli(*arguments)
    assert cli(*arguments, "--overwrite").exit_code == 0
