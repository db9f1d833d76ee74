"""Other packages add samplers, schedules, networks and formats through entry points."""

import json
import math
import subprocess
import sys
import textwrap

import pytest

from kdiff.checkpoints import formats

PLUGIN = """
    import numpy as np, torch
    from pathlib import Path
    from kdiff.samplers import sampler

    @sampler("half_euler", order=1, paper="none")
    def half_euler(x, sigmas):
        for s, t in zip(sigmas, sigmas[1:]):
            d = yield x, s
            x = (t / s) * x + (1 - t / s) * d
        return x

    def square(n, sigma_min, sigma_max, power=2.0):
        return np.linspace(sigma_max ** (1 / power), sigma_min ** (1 / power), n) ** power

    NAME = "toy"
    def detect(path):
        return None if Path(path).suffix == ".toy" else "no .toy"

    def load(path, scale=1.0):
        import kdiff
        return kdiff.wrap(lambda x, s: scale * x, "denoised", shape=(2,), name="toy")

    def doubled(factor=2.0):
        from kdiff.preconditioners import Precond
        return Precond("doubled", row, clock, 0.1, 10.0)

    def row(sigma):
        return 0.0, 1.0, 1.0

    def clock(sigma):
        return 2 * sigma

    class Plain(torch.nn.Module):
        def __init__(self, width=2):
            super().__init__()
            self.layer = torch.nn.Linear(2, width)

        def forward(self, x, t, class_labels=None):
            return self.layer(x)

    from kdiff.networks import network

    @network("decorated")
    class Decorated(Plain):
        pass

    from kdiff.eval.evaluation import Metric
    METRIC = Metric("TOY", "a toy", "rows", "", lambda kept, _: [(1.0, None)])
"""


POINTS = """
    [kdiff.samplers]
    toy = kdiff_toy
    [kdiff.schedules]
    square = kdiff_toy:square
    [kdiff.checkpoints]
    toy = kdiff_toy
    broken = kdiff_toy_that_is_not_there
    [kdiff.metrics]
    toy = kdiff_toy:METRIC
    [kdiff.preconditioners]
    doubled = kdiff_toy:doubled
    [kdiff.networks]
    plain_net = kdiff_toy:Plain
    toys = kdiff_toy
"""


USE = """
    import json, sys, warnings, kdiff
    from click.testing import CliRunner
    from kdiff.cli import main

    assert "kdiff_toy" not in sys.modules  # only when something asks for it
    names = {}
    warnings.simplefilter("error")
    try:
        kdiff.checkpoints.formats()
    except UserWarning as warning:
        assert "cannot load kdiff_toy_that_is_not_there of kdiff.checkpoints" in str(warning)
    warnings.simplefilter("ignore")
    for what in ("samplers", "schedules", "formats", "metrics"):
        result = CliRunner().invoke(main, ["list", what, "--json"])
        names[what] = [row["name"] for row in json.loads(result.stdout)]
    model = kdiff.load(sys.argv[1], scale=0.5)
    sample = kdiff.sample(model, "Half Euler", steps=3, schedule="square", power=3)
    kept = []
    for name in ("plain net", "decorated"):
        from kdiff.networks import NETWORKS
        from kdiff.checkpoints import native
        made = NETWORKS.find(name).thing(width=2)
        own = kdiff.Denoiser(made, kdiff.precond("doubled", factor=3), shape=(2,))
        native.save("toy.safetensors", made.state_dict(), native.describe(own))
        read = kdiff.load("toy.safetensors")
        kept.append([type(read.network).__name__, read.network.config, read.precond.config])
        kept[-1].append(read.precond(1.0).c_noise)
    print(json.dumps([names, model.facts["format"], list(sample.shape), kept]))
"""


def test_other_packages_add_samplers_schedules_formats_and_metrics(tmp_path):
    (tmp_path / "kdiff_toy.py").write_text(textwrap.dedent(PLUGIN))
    info = tmp_path / "kdiff_toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kdiff-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(POINTS))
    (tmp_path / "model.toy").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + textwrap.dedent(USE)
    command = [sys.executable, "-c", code, str(tmp_path / "model.toy")]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    names, format_, shape, kept = json.loads(found.stdout)
    assert "half_euler" in names["samplers"] and "square" in names["schedules"]
    assert "toy" in names["formats"] and "toy" in names["metrics"]
    assert (format_, shape) == ("toy", [1, 2])
    doubled = {"name": "doubled", "factor": 3.0}
    assert kept == [
        ["Plain", {"name": "plain_net", "width": 2}, doubled, 2.0],
        ["Decorated", {"name": "decorated", "width": 2}, doubled, 2.0],
    ]


def test_a_module_that_is_not_a_format_is_left_out(monkeypatch):
    monkeypatch.setattr("kdiff.names.plugins", lambda group: {"toy": math})
    with pytest.warns(UserWarning, match="toy of kdiff.checkpoints is left out: a format has NAME"):
        assert "toy" not in formats()
