"""clean-fid's statistics by name: downloaded, or from its own folder."""

import io
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from kdiff.eval.references import foreign as foreign_statistics
from toy_references import find, gaussian, refused


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
