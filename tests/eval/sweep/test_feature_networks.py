"""Sweeps judged by several feature networks: the images of a cell are computed once."""

import numpy as np
import pytest
from click.testing import CliRunner

import kdiff
from kdiff.cli import main
from kdiff.eval import sweep
from kdiff.eval.features import feature_network
from kdiff.eval.sweep.cell import Judge, ModelSpec
from kdiff.eval.sweep.turns import groups
from kdiff.models import sha256
from small_sweeps import TOY, lines, results


def test_two_feature_networks_look_at_images_that_are_computed_once(
    kdiff_sweep, tmp_path, monkeypatch
):
    real = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", real)
    few = "small_sweeps:few_features"
    cells = ("--sampler", "euler,dpmpp_2m,euler_ancestral", "--steps", 4, "--metrics", "fid")
    asked = []
    call = kdiff.Denoiser.__call__
    monkeypatch.setattr(
        kdiff.Denoiser,
        "__call__",
        lambda self, x, s, **cond: asked.append(s) or call(self, x, s, **cond),
    )

    def judged_by(out, features):
        asked.clear()
        ref = tmp_path / "real.npz"
        result = kdiff_sweep(tmp_path / out, *cells, "--ref", ref, "--features", features)
        assert result.exit_code == 0, result.output
        return len(asked), result.output

    alone, _ = judged_by("apart", TOY)
    judged_by("apart", few)
    together, output = judged_by("together", f"{TOY},{few},{TOY}")
    assert together == alone and results(tmp_path / "together") == results(tmp_path / "apart")
    table = [line.split() for line in output.splitlines() if " karras " in line]
    assert len(table) == 3 and all(len(row) == 7 for row in table)  # and seconds

    ref = ("--ref", tmp_path / "real.npz", "--features", f"{TOY},{few}")
    result = kdiff_sweep(tmp_path / "is", *cells[:4], *ref, "--metrics", f"rmse,fid,is@{few}")
    assert result.exit_code == 0, result.output
    table = [line.split() for line in result.output.splitlines() if " karras " in line]
    assert [len(row) for row in table] == [9, 9, 8]  # the last, which adds noise, has no RMSE
    otherwise = f"is@{few},fid,fid@{few},rmse"
    again = kdiff_sweep(tmp_path / "is", *cells[:4], *ref, "--metrics", otherwise)
    assert again.exit_code == 0 and len(lines(tmp_path / "is")) == 6
    found = [set(line["metrics"]) for line in lines(tmp_path / "is").values()]
    assert found.count({"seconds", f"FD ({TOY})"}) == 1  # the sampler that adds noise
    assert found.count({"seconds", f"FD ({TOY})", "RMSE"}) == 2
    assert found.count({"seconds", f"FD ({few})", f"IS ({few})"}) == 1
    assert found.count({"seconds", f"FD ({few})", f"IS ({few})", "RMSE"}) == 2
    for nobody in ("inception", ""):
        result = kdiff_sweep(tmp_path / "is", *ref, "--metrics", f"fid,is@{nobody}")
        assert result.exit_code == 2 and f"{nobody!r} is none of --features" in result.stderr


def test_the_networks_that_look_at_the_same_images_are_in_one_shard_and_one_group(cells_of_two):
    shards = [sweep.of_shard(cells_of_two, (i, 3)) for i in (1, 2, 3)]
    assert sorted(cell.key for shard in shards for cell in shard) == sorted(
        cell.key for cell in cells_of_two
    )
    for parts in (shards, list(groups(sweep.of_shard(cells_of_two, None)))):
        images = [{cell.images for cell in part} for part in parts]
        assert sum(map(len, images)) == len(set().union(*images)) == 7
        assert all(len(part) == 2 * len(own) <= 8 for part, own in zip(parts, images, strict=True))


@pytest.fixture
def cells_of_two(workplace):
    """Seven sets of images, on each of which two networks have different metrics."""
    path = workplace / "tiny.safetensors"
    return sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["euler", "euler_ancestral", "heun"],
        sizes=[{"steps": n} for n in (3, 4, 5)],
        n=20,
        judges=[
            Judge(("fid", "rmse"), feature_network(TOY)),
            Judge(("fid", "is"), feature_network("small_sweeps:few_features")),
        ],
    )[:14]


def test_the_resize_mode_is_inceptions_where_it_is_among_several(tmp_path):
    words = ["sweep", "--metrics", "fid", "--steps", "2", "--out", str(tmp_path), "--dry-run"]
    words += ["--resize", "clean", "--features"]
    result = CliRunner().invoke(main, [*words, "cifar10-classifier,inception"])
    assert result.exit_code == 0 and "2 of 2 cells to compute" in result.output, result.output
    result = CliRunner().invoke(main, [*words, "cifar10-classifier"])
    assert result.exit_code == 2 and "--resize and --weights are for inception" in result.output
