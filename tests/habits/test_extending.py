"""docs/extending.md: what it shows is installed as a package, and used."""

import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import kdiff
import odd_samplers
from exact_models import Pointwise
from kdiff.editing import EDITS
from kdiff.modifications import chosen
from kdiff.samplers import REGISTRY

PAGE = (Path(__file__).parents[2] / "docs/extending.md").read_text()
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S)
MOST_LINES = 15

USE = """
    import json, math, sys
    import numpy as np, torch
    from click.testing import CliRunner
    import kdiff
    from kdiff.cli import main

    def cli(*words):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def names(what):
        return [row["name"] for row in json.loads(cli("list", what, "--json"))]

    shown = {what: names(what) for what in
             ("samplers", "schedules", "metrics", "features", "formats")}

    mean, std = torch.tensor([[[0.5, -0.25]]]).double(), 0.5
    exact = kdiff.analytic.gaussian(mean, std)
    x = 10 * kdiff.Noise([0], mean.shape, torch.float64).initial()
    end = kdiff.analytic.gaussian_solution(mean, std, x, 10.0, 0.1)
    errors = {}
    for at in (2 / 3, 0.8):  # the midpoint rule is of order 3 on this ODE
        for steps in (40, 80):
            plan = kdiff.plan(exact, "Two Slopes", steps=steps, sigma_min=0.1, sigma_max=10.0,
                              final="sigma_min", options={"at": at})
            *_, last = kdiff.drive(exact, plan, x, kdiff.Noise([0], mean.shape, torch.float64))
            errors[f"{at:.2f} {steps}"] = float((last.x - end).abs().max())
            assert last.nfe == plan.nfe == 2 * steps
    grid = kdiff.schedule("Flow Time", 4, sigma_min=0.25, sigma_max=4.0, final="sigma_min")
    shifted = kdiff.schedule("flow_time", 4, sigma_min=0.25, sigma_max=4.0, shift=2,
                              final="sigma_min")

    np.savez("data.npz", mean=mean.numpy(), std=std)
    model = kdiff.load("data.npz")
    at_mean = model(mean.float().expand(3, -1, -1, -1), 2.0)

    def skewed(x, sigma, **cond):
        return x * torch.tensor([1.0, 0.0])

    small = dict(n=2, steps=3, shape=(1, 1, 2), sigma_min=0.1, sigma_max=1.0)
    plain, both = (kdiff.sample(skewed, "euler", guide=g, **small) for g in ((), "mirrored"))
    half = kdiff.sample(lambda x, s: 0.5 * x, "euler", **small)
    nfe = []
    kdiff.sample(skewed, "euler", guide="mirrored:share=0.25",
                 callback=lambda state: nfe.append(state.nfe), **small)
    whole = kdiff.sample(skewed, "euler", guide="mirrored:share=0", **small)

    smoothed = [kdiff.sample(model, "euler", n=2, steps=5, edits=[f"smoothed:keep={keep}"])
                for keep in (0, 0.5)]
    unedited = kdiff.sample(model, "euler", n=2, steps=5)
    first = kdiff.sample(model, "euler", n=2, steps=5, edits=["smoothed:keep=1"])

    cli("sample", "--model", "data.npz", "--sampler", "two_slopes", "--option", "at=0.5",
        "--schedule", "flow_time", "--steps", "3", "--num", "2", "--out", "samples")
    run = json.loads(open("samples/run.json").read())
    figures = json.loads(cli("eval-fid", "--images", "images.npy", "--ref", "images.npy",
                             "--features", "colours", "--metrics", "spread", "--json"))
    print(json.dumps({
        "shown": shown, "errors": errors, "grid": grid, "shifted": shifted,
        "explained": cli("explain", "two_slopes", "--steps", "2"),
        "format": model.facts["format"], "at mean": (at_mean - mean).abs().max().item(),
        "mirrored is the mean": torch.allclose(both, half, atol=1e-6),
        "guided changes": not torch.allclose(plain, both), "unguided": torch.equal(plain, whole),
        "guided nfe": nfe[-1],
        "unsmoothed": torch.equal(smoothed[0], unedited),
        "smoothed": not torch.allclose(smoothed[1], unedited, atol=1e-3),
        "kept finite": bool(first.isfinite().all()),
        "run": str(run), "figures": figures,
    }))
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """What a fresh Python prints in which the page's package is installed."""
    folder = tmp_path_factory.mktemp("extending")
    for name, text in BLOCKS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    groups = tomllib.loads(re.search(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)[1])
    points = [
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in names.items())
        for group, names in groups["project"]["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(points))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n" + textwrap.dedent(USE)
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert found.returncode == 0, found.stderr
    return {**json.loads(found.stdout.splitlines()[-1]), "images": images}


def test_each_is_short():
    assert [name.rpartition("/")[2] for name, _ in BLOCKS] == [
        *("samplers.py", "schedules.py", "guidance.py", "editing.py", "metrics.py"),
        *("features.py", "gaussians.py"),
    ]
    lines = {name: sum(map(bool, text.splitlines())) for name, text in BLOCKS}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_all_are_listed(used):
    assert "two_slopes" in used["shown"]["samplers"] and "flow_time" in used["shown"]["schedules"]
    assert "spread" in used["shown"]["metrics"] and "colours" in used["shown"]["features"]
    assert "gaussian" in used["shown"]["formats"]


def test_the_sampler_has_its_order_with_every_option(used):
    errors = used["errors"]
    for at in ("0.67", "0.80"):
        assert 3.6 < errors[f"{at} 40"] / errors[f"{at} 80"] < 4.4  # halved steps, order 2
    assert "D3" in used["explained"]  # two steps to zero: three evaluations


def test_the_schedule_is_even_in_the_flows_time(used):
    t = np.array(used["grid"]) / (1 + np.array(used["grid"]))
    np.testing.assert_allclose(np.diff(t), np.diff(t)[0], rtol=1e-9)
    assert (used["grid"][0], used["grid"][-1]) == (4.0, 0.25)
    t = np.array(used["shifted"]) / (2 + np.array(used["shifted"]))
    np.testing.assert_allclose(np.diff(t), np.diff(t)[0], rtol=1e-9)


def test_the_format_reads_the_file(used):
    assert used["format"] == "gaussian"
    assert used["at mean"] < 1e-6


def test_the_guidance_guides_and_is_counted(used):
    assert used["mirrored is the mean"] and used["guided changes"] and used["unguided"]
    assert used["guided nfe"] == 6  # three steps, two evaluations each


def test_the_edit_edits(used):
    assert used["unsmoothed"] and used["smoothed"] and used["kept finite"]


@pytest.mark.parametrize(
    "sampler", [odd_samplers.adaptive, REGISTRY["heun"]], ids=["adaptive", "heun"]
)
def test_the_edit_keeps_the_past_of_each_sample(sampler):
    exec(dict(BLOCKS)["my_package/editing.py"], {})
    try:
        smoothed = chosen(EDITS, "smoothed:keep=0.5")
        grid = [8.0, 3.0, 1.0, 0.3, 0.0]
        plan = kdiff.Plan(sampler, sampler.with_defaults(), grid, "given", (smoothed,))
        both, *alone = (
            list(states)[-1].x
            for seeds in ([5, 2], [5], [2])
            for _, states in kdiff.run(Pointwise(), plan, seeds)
        )
    finally:
        del EDITS["smoothed"]
    assert torch.equal(both, torch.cat(alone))


def test_the_metric_and_the_features_reach_the_command_line(used):
    means = used["images"].mean((1, 2))
    spread = np.sqrt(means.var(axis=0).sum())
    figure = used["figures"]["metrics"]["spread (colours)"]
    assert figure["value"] == pytest.approx(spread, rel=1e-5)
    assert "two_slopes" in used["run"] and "flow_time" in used["run"]
