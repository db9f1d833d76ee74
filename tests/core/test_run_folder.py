"""What is left in the folder of `kdiff sample`, and what `kdiff eval-fid` makes of it."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kdiff
from kdiff.cli import main
from kdiff.eval.images.pictures import open_pictures
from kdiff.run_folder import parse_run

FEW = ("sample", "--sampler", "euler", "--steps", "1")


def sample(out, *arguments):
    result = CliRunner().invoke(main, [*FEW, "--out", str(out), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return sample(tmp_path_factory.mktemp("once") / "run", "--num", 4)


@pytest.fixture
def run(once, tmp_path):
    return shutil.copytree(once, tmp_path / "run")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_overwrite_replaces_the_run_and_nothing_else(run):
    (run / "mine.txt").write_text("keep me")
    Image.new("RGB", (32, 32)).save(run / "mine.png")
    sample(run, "--seeds", "2,7", "--overwrite")
    own = ["000002.png", "000007.png", "grid.png", "run.json"]
    assert names(run) == sorted([*own, "mine.png", "mine.txt"])


def test_overwrite_takes_the_trajectory_too(run):
    sample(run, "--num", 2, "--overwrite", "--trajectory", run / "film.gif")
    assert json.loads((run / "run.json").read_text())["trajectory"] == "film.gif"
    assert len(open_pictures(run)) == 2  # neither the film nor the overview
    sample(run, "--num", 3, "--overwrite", "--trajectory", run.parent / "film.gif")
    assert "film.gif" not in names(run) and (run.parent / "film.gif").exists()
    assert json.loads((run / "run.json").read_text())["trajectory"] is None


def test_what_another_run_json_names_stays(run):
    record = {"seeds": [0, 1], "sampler": "euler", "trajectory": "../outside.gif"}
    (run.parent / "outside.gif").write_bytes(b"mine")
    (run / "run.json").write_text(json.dumps(record))
    sample(run, "--seeds", "9", "--overwrite")
    assert names(run) == ["000002.png", "000003.png", "000009.png", "grid.png", "run.json"]
    assert (run.parent / "outside.gif").exists()


def test_pictures_that_the_record_does_not_name_are_refused(run):
    assert len(open_pictures(run)) == 4
    shutil.copy(run / "000000.png", run / "000012.png")
    with pytest.raises(ValueError, match=r"names 4 pictures, but there are 1 others \(000012"):
        open_pictures(run)
    with pytest.raises(ValueError, match=r"run/run\.json names 4 pictures"):
        open_pictures(run.parent)  # in a folder below, too
    (run / "run.json").unlink()  # as the message says
    (run / "grid.png").unlink()
    assert len(open_pictures(run)) == 5


def test_pictures_that_are_missing_are_refused(run):
    (run / "000001.png").unlink()
    (run / "000002.png").unlink()
    with pytest.raises(ValueError, match=r"4 pictures, but 2 of them are missing \(000001\.png, "):
        open_pictures(run)


def test_a_run_in_a_zip_is_checked_too(run, tmp_path):
    assert len(open_pictures(shutil.make_archive(str(tmp_path / "whole"), "zip", run))) == 4
    (run / "000001.png").unlink()
    with pytest.raises(ValueError, match="1 of them are missing"):
        open_pictures(shutil.make_archive(str(tmp_path / "less"), "zip", run))


FOREIGN = ["", "[]", "{}", "[" * 100_000, '{"seeds": [1]}', '{"seeds": 3, "sampler": "a"}', "é"]
FOREIGN += ['{"seeds": ["../x"], "sampler": "a"}', '{"seeds": [true], "sampler": "euler"}']


@pytest.mark.parametrize("text", FOREIGN, ids=lambda text: text[:20])
def test_a_run_json_of_another_program_says_nothing(text, run):
    assert parse_run(text) is None
    (run / "run.json").write_text(text, encoding="utf-8")
    assert len(open_pictures(run)) == 4
    sample(run, "--seeds", "9", "--overwrite")
    assert len([name for name in names(run) if name != "grid.png"]) == 6


def test_a_run_that_fails_takes_nothing_away(run, monkeypatch):
    monkeypatch.setattr(kdiff.Denoiser, "__call__", lambda self, x, sigma, **_: x / 0)
    arguments = [*FEW, "--out", str(run), "--seeds", "9", "--overwrite"]
    assert CliRunner().invoke(main, arguments).exit_code == 1
    assert names(run) == ["000000.png", "000001.png", "000002.png", "000003.png"]


def test_the_record_names_the_pictures_that_are_there(run):
    named = parse_run((run / "run.json").read_text())
    pictures = np.concatenate(list(open_pictures(run).batches(9)))
    assert sorted(named.pictures) == names(run)[:4] and pictures.shape == (4, 32, 32, 3)
