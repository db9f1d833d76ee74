"""--sigmas on every command with a grid, and schedules side by side."""

import json

import pytest
from click.testing import CliRunner

import kdiff
from kdiff.cli import main


def told(*words):
    return CliRunner().invoke(main, ["explain", *words])


@pytest.mark.parametrize("text", ["[9, 3.5, 1, 0]", "9\n3.5\n1\n0\n"])
def test_sigmas_are_a_list_or_a_file(text, tmp_path):
    path = tmp_path / "sigmas"
    path.write_text(text)
    found = [
        json.loads(told("euler", "--sigmas", given, "--json").output)
        for given in ("9, 3.5, 1, 0", str(path))
    ]
    assert found[0] == found[1]
    assert found[0]["sigmas"] == [9, 3.5, 1, 0] and found[0]["schedule"] == "given"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sigmas", "3,1,2"], "strictly decreasing"),
        (["--sigmas", "5"], "two or more"),
        (["--sigmas", "9,nan,0"], "a sigma must be a number"),
        (["--sigmas", "nowhere.txt"], "--sigmas takes a list such as 80,10,1,0, or a file"),
        (["--sigmas", "9,1,0", "--steps", "2"], "only one of steps, nfe and sigmas"),
        (["--sigmas", "9,1,0", "--nfe", "2"], "only one of steps, nfe and sigmas"),
        (["--sigmas", "9,1,0", "--schedule", "karras"], "leave out schedule"),
        (["--sigmas", "9,1,0", "--rho", "3"], "leave out rho"),
        (["--sigmas", "9,1,0", "--sigma-max", "3"], "leave out sigma_max"),
        (["--sigmas", "9,1,0", "--final", "zero"], "leave out final"),
    ],
)
def test_wrong_sigmas(words, message):
    result = told("euler", *words)
    assert result.exit_code == 2
    assert message in result.output.splitlines()[-1]


@pytest.mark.parametrize("text", ["[1, 2", "[[3, 1], 0]", "a b", '[1, "x"]'])
def test_a_file_of_something_else(text, tmp_path):
    path = tmp_path / "sigmas.json"
    path.write_text(text)
    result = told("euler", "--sigmas", str(path))
    assert result.exit_code == 2 and "must be a list such as" in result.output.splitlines()[-1]


def test_sigmas_sample(tmp_path):
    words = ["sample", "--sigmas", "20,1,0", "--num", "1", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["sigmas"] == [20, 1, 0]


def test_schedules_side_by_side(tmp_path):
    result = told("--schedule", "karras,beta:alpha=0.5,KL Optimal", "--steps", "4", "--rho", "5")
    lines = result.output.splitlines()
    assert lines[0].split() == ["point", "karras", "beta:alpha=0.5", "KL", "Optimal"]
    assert len(lines) == 6
    assert lines[2].split()[1] == f"{kdiff.schedule('karras', 4, rho=5)[1]:.4g}"
    shown = json.loads(told("--schedule", "karras,beta", "--steps", "4", "--json").output)
    assert shown == {name: kdiff.schedule(name, 4) for name in ("karras", "beta")}
    result = told("--schedule", "karras,trailing", "--steps", "4")
    assert result.stderr == "Note: trailing: over Stable Diffusion's timesteps\n"
    alphas = kdiff.alphas_cumprod("scaled_linear")
    assert result.stdout.splitlines()[1].split()[2] == f"{(1 / alphas[-1] - 1) ** 0.5:.4g}"
    path = tmp_path / "new" / "schedules.png"
    result = told("--schedule", "karras,beta", "--steps", "4", "--save", str(path))
    assert result.exit_code == 0 and path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedule", "karras,karass"], "did you mean karras"),
        (["--schedule", "karras,"], "none of them empty"),
        (["--schedule", "linspace", "--steps", "1001"], "at most the model's 1000 timesteps"),
        (["--sigmas", "9,1,0", "--schedule", "karras"], "leave out schedule"),
        (["--sigmas", "9,1,0", "--steps", "2"], "only one of steps, nfe and sigmas"),
        (["--sigmas", "9,1,0", "--rho", "2"], "leave out rho"),
        (["--save", "a.jpg"], "--save takes a name that ends in .png"),
        (["--option", "eta=0"], "guidance, options and --first are of a sampler"),
        (["--guidance", "2"], "guidance, options and --first are of a sampler"),
    ],
)
def test_schedules_that_cannot_be_shown(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = told(*words)
    assert result.exit_code == 2
    assert message in result.output.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["sample", "eval-fid", "explain", "sweep"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runge_kutta", "tableau=rk5"], "unknown tableau 'rk5'"),
        (["runge_kutta", "tableau=/etc/passwd"], "a file's name must end in .json"),
        (["restart", "restarts=[[1, 2]]"], "restarts must be [[points, times, t_min, t_max], ..]"),
        (["analytic_dpm", "gammas=[1]"], "gammas must be [[sigma, gamma], ..]"),
    ],
)
def test_options_that_a_sampler_reads_itself(command, words, message, tmp_path, monkeypatch):
    """Before anything is computed, and with the status of a usage error."""
    monkeypatch.chdir(tmp_path)
    sampler, option = words
    named = [sampler] if command == "explain" else ["--sampler", sampler, "--model", "mnist"]
    named += ["--ref", "mnist"] if command == "eval-fid" else []
    steps = ["--metrics", "rmse"] if command == "sweep" else []
    result = CliRunner().invoke(main, [command, *named, *steps, "--steps", "3", "--option", option])
    assert result.exit_code == 2, result.output
    assert message in result.output.splitlines()[-1]
    assert not list(tmp_path.iterdir())
