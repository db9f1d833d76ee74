"""Cells with guidance and edits: what they are called, what they cost, and what they find."""

from typing import Annotated

import numpy as np
import pytest
import torch
from PIL import Image

import kdiff
from kdiff.checkpoints import native
from kdiff.editing import EDITS, edit
from kdiff.eval import sweep
from kdiff.eval.sweep import Judge, ModelSpec
from kdiff.eval.sweep import converged_solution as converged
from kdiff.eval.sweep.turns import groups
from kdiff.guidance import GUIDANCE, guidance
from kdiff.images import to_uint8
from kdiff.models import sha256
from kdiff.modifications import Modification
from kdiff.options import Option
from small_sweeps import NETWORK, lines

RMSE = ("--metrics", "rmse")
NONE = ("--metrics", "none")


def cfg(scale):
    return Modification("cfg", {"scale": scale})


@pytest.fixture
def upper_guidance():
    """A guidance that calls the model three times above sigma = 1, and once below."""

    def asks(inner, sigma, *, shift):
        again = {f"{time}: {asked}" for time in ("again", "more") for asked in inner}
        return inner | again if sigma > 1 else inner

    @guidance("upper", paper="a test", asks=asks)
    def upper(model, *, shift: Annotated[float, Option("of the mean", -1, 1)] = 0.1):
        def denoise(x, sigma, **cond):
            asked = [model(x.clone(), sigma, **cond) for _ in range(3 if sigma > 1 else 1)]
            return asked[0] + shift

        return denoise

    yield
    del GUIDANCE["upper"]


@pytest.fixture
def clamped_edit():
    @edit("clamped", paper="a test")
    def clamped(start, x, sigmas, *, noise, most: Annotated[float, Option("bound", 0)] = 0.5):
        walk = start(x, sigmas)
        while walk.asks:
            answers = yield list(walk.asks)
            walk.answer(*(d.clamp(-most, most) for d in answers))
        return walk.result

    yield
    del EDITS["clamped"]


def tiles(picture):
    with Image.open(picture) as image:
        grid = np.asarray(image)
    return np.stack([grid[2 + 10 * (i // 4) :, 2 + 10 * (i % 4) :][:8, :8] for i in range(16)])


def alone(workplace, **arguments):
    model = kdiff.load(workplace / "tiny.safetensors")
    settings = {"n": 20, "batch": 16, "class_labels": [i % 3 for i in range(20)]}
    return kdiff.sample(model, **settings, **arguments)


def test_a_guided_cell_is_what_kdiff_sample_makes_of_the_guided_model(
    kdiff_sweep, workplace, tmp_path, monkeypatch
):
    monkeypatch.setattr(converged, "STEPS", 96)
    words = ("--sampler", "heun,dpmpp_2m_sde", "--steps", 3, *RMSE)
    result = kdiff_sweep(tmp_path, *words, "--guide", "cfg:scale=1,4")
    assert result.exit_code == 0, result.output
    found = list(lines(tmp_path).values())
    assert len(found) == 4 and len(list((tmp_path / "converged").iterdir())) == 2
    for line in found:
        cell, sampler = line["cell"], line["cell"]["sampler"]
        (guide,) = cell["guidance"]
        scale = guide["options"]["scale"]
        asks = {"heun": 5, "dpmpp_2m_sde": 3}[sampler]
        assert guide == {"name": "cfg", "options": {"scale": scale}}
        assert cell["nfe"] == (asks if scale == 1 else 2 * asks)
        assert cell.get("asks") == (None if scale == 1 else asks)
        x = alone(workplace, sampler=sampler, steps=3, guide=f"cfg:scale={scale}")
        assert np.array_equal(tiles(tmp_path / line["grid"]), to_uint8(x)[:16])
        if sampler == "heun":
            target = alone(workplace, sampler="unipc", steps=150, guide=f"cfg:scale={scale}")
            each = (x - target).square().mean((1, 2, 3)).sqrt()
            assert line["metrics"]["RMSE"]["value"] == pytest.approx(float(each.mean()), rel=1e-2)
    (one, four) = (
        next(line for line in found if line["cell"]["guidance"][0]["options"]["scale"] == scale)
        for scale in (1, 4)
    )
    assert not np.array_equal(tiles(tmp_path / one["grid"]), tiles(tmp_path / four["grid"]))
    rows = [line for line in result.stdout.splitlines() if line.startswith("heun")]
    assert [row.split()[1:6] for row in rows] == [
        ["(cfg:scale=1.0)", "karras", "3", "5", rows[0].split()[5]],
        ["(cfg:scale=4.0)", "karras", "3", "10", rows[1].split()[5]],
    ]


def test_unguided_cells_keep_their_keys_beside_guided_ones(kdiff_sweep, tmp_path):
    words = ("--steps", 2, *NONE)
    kdiff_sweep(tmp_path, *words)
    (plain,) = lines(tmp_path).values()
    assert not {"guidance", "edits", "asks"} & plain["cell"].keys()
    kdiff_sweep(tmp_path, *words, "--guide", "cfg:scale=1")
    assert len(lines(tmp_path)) == 2
    assert "0 of 1 cells" in kdiff_sweep(tmp_path, *words, "--dry-run").stdout


def test_evaluations_of_the_network_are_counted_level_by_level(
    kdiff_sweep, workplace, tmp_path, monkeypatch, upper_guidance
):
    asked = []
    call = kdiff.Denoiser.__call__

    def counting(self, x, s, **cond):
        asked.append(s)
        return call(self, x, s, **cond)

    monkeypatch.setattr(kdiff.Denoiser, "__call__", counting)
    words = ("--sampler", "heun", "--steps", 5, *NONE, "--num", 4)
    result = kdiff_sweep(tmp_path, *words, "--guide", "upper")
    assert result.exit_code == 0, result.output
    (line,) = lines(tmp_path).values()
    assert line["cell"]["nfe"] == len(asked) and line["cell"]["asks"] == 9
    assert 9 < len(asked) < 27


def test_guidances_compose_in_the_order_given_with_every_combination_of_values(
    kdiff_sweep, tmp_path, upper_guidance
):
    guides = ("--guide", "cfg:scale=1.5,3", "--guide", "upper:shift=0,0.5")
    result = kdiff_sweep(tmp_path, "--steps", 2, *NONE, *guides)
    assert result.exit_code == 0, result.output
    found = {
        tuple((g["name"], *g["options"].values()) for g in line["cell"]["guidance"])
        for line in lines(tmp_path).values()
    }
    assert found == {(("cfg", s), ("upper", w)) for s in (1.5, 3.0) for w in (0.0, 0.5)}
    assert {line["cell"]["nfe"] for line in lines(tmp_path).values()} == {2 * 3 + 2 * 1}


def test_an_edited_cell_says_so_and_has_no_rmse(kdiff_sweep, workplace, tmp_path, clamped_edit):
    words = ("--sampler", "euler", "--steps", 3)
    assert kdiff_sweep(tmp_path, *words, *NONE).exit_code == 0
    result = kdiff_sweep(tmp_path, *words, *NONE, "--edit", "clamped:most=0.25,0.5")
    assert result.exit_code == 0, result.output
    edited = [line for line in lines(tmp_path).values() if "edits" in line["cell"]]
    assert len(lines(tmp_path)) == 3 and len(edited) == 2
    for line in edited:
        ((name, options),) = ((one["name"], one["options"]) for one in line["cell"]["edits"])
        x = alone(workplace, sampler="euler", steps=3, edits=[Modification(name, options)])
        assert np.array_equal(tiles(tmp_path / line["grid"]), to_uint8(x)[:16])
    refused = kdiff_sweep(tmp_path / "out", *words, *RMSE, "--edit", "clamped")
    assert refused.exit_code == 2 and "or their course is edited" in refused.stderr


def test_cells_with_different_guidance_are_never_in_one_lockstep_group(workplace):
    path = workplace / "tiny.safetensors"
    cells = sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["euler", "dpmpp_2m"],
        sizes=[{"steps": 3}],
        guides=[(), (cfg(2.0),), (cfg(3.0),)],
        n=2,
        judges=[Judge(())],
    )
    assert len({cell.key for cell in cells}) == len({cell.images for cell in cells}) == 6
    found = list(groups(sweep.of_shard(cells, None)))
    assert sorted(len(group) for group in found) == [2, 2, 2]
    assert all(len({cell.model.guides for cell in group}) == 1 for group in found)


GUIDED = ("--guide", "cfg:scale=1,1.5,3")


@pytest.mark.parametrize(
    "text",
    ["cfg:scale=1,1.5,3", "[cfg:scale=1,1.5,3]", '["cfg:scale=1,1.5,3"]', "\n- cfg:scale=1,1.5,3"],
)
def test_a_file_says_the_same_as_the_command_line(kdiff_sweep, tmp_path, text):
    (tmp_path / "sweep.yaml").write_text(f"guide: {text}\nsteps: 2\nmetrics: none\n")
    out = tmp_path / "out"
    from_words = kdiff_sweep(out, "--steps", 2, *NONE, *GUIDED, "--dry-run").stdout
    assert "3 of 3 cells" in from_words
    from_file = kdiff_sweep(out, "--file", tmp_path / "sweep.yaml", "--dry-run").stdout
    assert from_file == from_words


def test_a_file_takes_several_guidances(kdiff_sweep, tmp_path, upper_guidance):
    text = "guide: [cfg:scale=1,2, upper:shift=0, cfg]\nsteps: 2\nmetrics: none\n"
    (tmp_path / "sweep.yaml").write_text(text)
    out = kdiff_sweep(tmp_path / "out", "--file", tmp_path / "sweep.yaml", "--dry-run").stdout
    assert "2 of 2 cells" in out
    assert "(cfg:scale=1.0, upper:shift=0.0, cfg:scale=1.5)" in out


BAD = {
    "unknown guidance": (
        ["--guide", "ho_salimanns:scale=2"],
        "'ho_salimanns'; did you mean ho_salimans? (see `kdiff list guidance`)",
    ),
    "unknown option": (["--guide", "cfg:scal=2"], "did you mean scale"),
    "not a number": (["--guide", "cfg:scale=1,big"], "scale must be a number from"),
    "no value": (["--guide", "cfg:scale=1,,2"], "scale must be a number from"),
    "no key": (["--guide", "cfg:=1"], "NAME:key=value"),
    "nothing": (["--guide", ""], "unknown guidance ''"),
    "an edit": (["--guide", "apg:momentum=-0.5,0"], "is an edit: give it as --edit apg:mom"),
    "unknown edit": (["--edit", "repaint"], "(see `kdiff list edits`)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(kdiff_sweep, case, tmp_path):
    arguments, message = BAD[case]
    result = kdiff_sweep(tmp_path / "out", *RMSE, *arguments)
    assert result.exit_code == 2, result.output
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("Error: ")]
    assert message in line and line == result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{cfg: 1}", "[]", "3", "[3]", "[cfg, 2]", "[[cfg]]", "~"])
def test_a_bad_guide_in_a_file_is_one_line(kdiff_sweep, tmp_path, text):
    (tmp_path / "sweep.yaml").write_text(f"guide: {text}\nmetrics: none\n")
    result = kdiff_sweep(tmp_path / "out", "--file", tmp_path / "sweep.yaml")
    assert result.exit_code == 2 and ": guide takes " in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_guided_is_refused_before_anything_is_written(kdiff_sweep, tmp_path):
    config = {
        "network": {"name": "song_unet", **NETWORK},
        "precond": {"name": "edm", "sigma_data": 0.5},
        "shape": [3, 8, 8],
    }
    network = native.NETWORKS["song_unet"](**NETWORK)
    native.save(tmp_path / "plain.safetensors", network.state_dict(), config)
    out, model = tmp_path / "out", tmp_path / "plain.safetensors"
    result = kdiff_sweep(out, *NONE, "--guide", "cfg", model=model)
    assert result.exit_code == 2 and not out.exists()
    assert "has no classes: leave out the guidance cfg" in result.stderr.splitlines()[-1]


def test_a_converged_solution_is_left_to_the_process_that_has_claimed_it(tmp_path, monkeypatch):
    model = kdiff.analytic.gaussian(torch.tensor([0.5, -1.0]))
    course = converged.Course(80.0, 0.002, "zero")
    monkeypatch.setattr(converged, "STEPS", 4)
    names = []

    class Elsewhere:
        """While it is waited for, another process makes the solution."""

        def __init__(self, name):
            names.append(name)

        def __enter__(self):
            if len(names) == 1:
                converged.cached(tmp_path, {"model": "a"}, model, course, range(3), claim=Elsewhere)
                monkeypatch.setattr(converged, "solve", None)

        def __exit__(self, *_):
            pass

    found = converged.cached(tmp_path, {"model": "a"}, model, course, range(3), claim=Elsewhere)
    (file,) = tmp_path.iterdir()
    assert names == [f"converged-{file.stem}"] * 2 and found.x.shape == (3, 2)


def test_equal_step_counts_are_planned_once(kdiff_sweep, tmp_path, monkeypatch):
    counts = ",".join(str(2 + i % 50) for i in range(100_000))
    loads, load = [], kdiff.load
    monkeypatch.setattr(kdiff, "load", lambda *given: loads.append(given) or load(*given))
    out = kdiff_sweep(tmp_path / "out", "--steps", counts, *NONE, "--dry-run").stdout
    assert "50 of 50 cells" in out and len(loads) == 1
