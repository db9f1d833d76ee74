"""Reference statistics of other libraries, in .npz files and in pickles."""

import pickle

import numpy as np

from toy_references import IMAGES, find, gaussian, refused


def test_npz_with_mu_and_sigma(tmp_path):
    g, s = gaussian(), gaussian(5)
    np.savez(tmp_path / "edm.npz", mu=g.mean, sigma=g.cov)
    found = find(tmp_path / "edm.npz")
    np.testing.assert_array_equal(found.mean, g.mean)
    np.testing.assert_array_equal(found.cov, g.cov)
    assert (found.n, found.features, found.resize, found.weights) == (None, None, None, None)
    assert found.spatial is None and found.name == "edm.npz"
    # guided-diffusion's file has images and float32 beside
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
