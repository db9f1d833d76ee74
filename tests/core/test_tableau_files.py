"""Tableaux as files: a saved sampler is the sampler, and what is not one is refused in a line."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch

import kdiff
from json_schema import fits
from kdiff.cli.explain_command import file_of
from kdiff.eval.sweep.cell import Cell, ModelSpec
from kdiff.samplers import REGISTRY
from kdiff.samplers.tableau import trace
from kdiff.tableau_files import TableauFile, read_tableau, tableau_text, write_tableau
from tiny_models import kdiff_cli

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "tableau.schema.json").read_text())
# REAB's rows do not sum to 1: see test_what_cannot_be_saved.
LINEAR = [n for n, s in REGISTRY.items() if s.linear and s.limit is None and n != "reab"]


class Gaussians(kdiff.analytic.GaussianMixture):
    name, data_mean, data_std = "two", 0.1, 0.8


MODEL = Gaussians(
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)


def save(path, sampler="ipndm", **planned):
    plan = kdiff.plan(MODEL, sampler, **{"steps": 5, **planned})
    write_tableau(path, file_of(plan, trace(plan.solver, plan.sigmas, plan.options)))
    return str(path)


def samples(sampler, **planned):
    return kdiff.sample(MODEL, sampler, seeds=[1, 2], dtype=torch.float64, **planned)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", LINEAR)
def test_a_saved_sampler_is_the_sampler(name, final, tmp_path):
    path = save(tmp_path / "t.json", name, final=final)
    assert fits(json.loads(Path(path).read_text()), SCHEMA)
    expected = samples(name, steps=5, final=final)
    torch.testing.assert_close(samples(path), expected, rtol=1e-12, atol=1e-12)
    ours, theirs = kdiff.plan(MODEL, path), kdiff.plan(MODEL, name, steps=5, final=final)
    assert (ours.sigmas, ours.levels) == (theirs.sigmas, theirs.levels)
    assert ours.outline.steps == theirs.outline.steps
    assert sorted(ours.outline.draws) == sorted(set(theirs.outline.draws))


def test_a_first_answer_goes_into_the_rows(tmp_path):
    path = save(tmp_path / "t.json", first="analytic")
    expected = samples("ipndm", steps=5, first="analytic")
    torch.testing.assert_close(samples(path), expected, rtol=1e-12, atol=1e-12)
    plan = kdiff.plan(MODEL, path)
    assert plan.nfe == 4 and plan.record()["tableau"]["mean"] == 0.1
    with pytest.raises(ValueError, match="needs the mean and spread of the data"):
        kdiff.plan(kdiff.analytic.data_set(torch.zeros(1, 2)), path)


def test_churn_and_drawn_intervals_are_kept(tmp_path):
    options = {"S_churn": 2.0}
    path = save(tmp_path / "t.json", "heun", options=options)
    torch.testing.assert_close(
        samples(path), samples("heun", steps=5, options=options), rtol=1e-12, atol=1e-12
    )


def test_records_and_keys_have_the_hash(tmp_path):
    a, b = (
        save(tmp_path / "a.json", steps=4),
        save(tmp_path / "b.json", steps=4, schedule="exponential"),
    )
    same = tmp_path / "elsewhere" / "c.json"
    same.parent.mkdir()
    same.write_bytes(Path(a).read_bytes())

    def key(path):
        plan = kdiff.plan(MODEL, path)
        spec = ModelSpec("two", Path("two"), "0")
        return Cell(spec, plan, plan.nfe, range(2), None, "float32", False, ()).key

    assert key(a) == key(str(same)) != key(b)
    plan = kdiff.plan(MODEL, a)
    record = plan.record()
    assert (record["sampler"], record["schedule"], record["nfe"]) == ("tableau ipndm", "tableau", 4)
    assert record["tableau"] == {"sha256": read_tableau(a).sha256}
    assert pickle.loads(pickle.dumps(plan)).record() == record


def test_a_folder_is_chosen_from_by_the_budget(tmp_path):
    for steps in (3, 5):
        save(tmp_path / f"nfe{steps}.json", steps=steps)
    folder = str(tmp_path)
    assert [kdiff.plan(MODEL, folder, nfe=n).nfe for n in (3, 4, 5, 9)] == [3, 3, 5, 5]
    with pytest.raises(ValueError, match="no tableau that nfe = 2 pays for: it has 3, 5"):
        kdiff.plan(MODEL, folder, nfe=2)
    with pytest.raises(ValueError, match="give nfe, of 3, 5"):
        kdiff.plan(MODEL, folder)
    save(tmp_path / "nfe7.json", steps=6)
    with pytest.raises(ValueError, match="has 6 asks, not 7 as its name says"):
        kdiff.plan(MODEL, folder, nfe=8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no tableaux: they are named"):
        kdiff.plan(MODEL, str(tmp_path / "empty"), nfe=3)


def test_a_name_goes_before_a_folder_and_a_path_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("heun", "solvers"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "nfe5.json")
    assert kdiff.plan(MODEL, "heun", nfe=5).sampler is REGISTRY["heun"]
    for folder in ("./heun", "heun/", "solvers"):
        assert kdiff.plan(MODEL, folder, nfe=5).sampler.name == "tableau ipndm"


@pytest.mark.parametrize(
    "beside",
    [
        {"steps": 5},
        {"nfe": 5},
        {"schedule": "karras"},
        {"final": "zero"},
        {"sigma_min": 0.1},
        {"sigma_max": 10.0},
        {"sigmas": [1.0, 0.0]},
        {"first": "analytic"},
        {"options": {"order": 2}},
        {"rho": 5.0},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_its_grid_is_its_own(beside, tmp_path):
    with pytest.raises(ValueError, match=f"a grid of its own: leave out {next(iter(beside))}"):
        kdiff.plan(MODEL, save(tmp_path / "t.json"), **beside)


GOOD = {
    "format": "kdiff-tableau/1",
    "name": "two",
    "sigmas": [8.0, 4.0, 0.0],
    "asks": [
        {"sigma": 8.0, "step": 0, "row": {"x_T": 1.0}},
        {"sigma": 4.0, "step": 1, "row": {"x_T": 0.5, "D1": 0.5, "n1": 0.1}},
    ],
    "noises": [{"from": 8.0, "to": 4.0, "draw": 0, "stream": "", "kind": "white"}],
    "result": {"D2": 1.0},
}
BAD = [  # path, value, what the message has; the schema's opinion
    ((), [], "it must be an object", False),
    (("format",), "kdiff-tableau/2", "its format is 'kdiff-tableau/2'", False),
    (("format",), [[[]]], "its format is list", False),
    (("name",), "a,b", "its name must be", False),
    (("name",), 3, "its name must be", False),
    (("source",), [], "its source must be an object", False),
    (("more",), 1, "unknown key 'more'", False),
    (("sigmas",), {}, "its sigmas must be a list", False),
    (("sigmas",), [8.0, 9.0, 0.0], "strictly decreasing", True),
    (("sigmas",), [8.0], "two or more", False),
    (("sigmas", 0), "8", "a sigma must be a finite number", False),
    (("sigmas", 0), True, "a sigma must be a finite number", False),
    (("sigmas", 0), 10**400, "a sigma must be a finite number", False),
    (("asks",), [], "it must have 1 to 10,000 asks", False),
    (("asks", 0), 3, "ask 1 must be an object", False),
    (("asks", 0, "sigma"), 0, "the sigma of ask 1 must be above 0", False),
    (("asks", 0, "sigma"), 1e300, "the sigma of ask 1 must be above 0", False),
    (("asks", 0, "step"), 2, "the step of ask 1 must be a whole number from 0 to 1", True),
    (("asks", 0, "step"), 0.5, "the step of ask 1 must be a whole number", False),
    (("asks", 0, "row"), {}, "the row of ask 1 must be an object", False),
    (("asks", 0, "row"), {"x_T": 0.9}, "in ask 1 sum to 0.9, not to 1", True),
    (("asks", 0, "row"), {"D1": 1.0}, "has 'D1', which is not known by then", True),
    (("asks", 0, "row"), {"D0": 1.0}, "has 'D0', which is not known", False),
    (("asks", 0, "row"), {"x_T": 1.0, "n2": 1.0}, "has 'n2', which is not known", True),
    (("asks", 0, "row"), {"x": 1.0}, "has 'x', which is not known", False),
    (("asks", 0, "row"), {"x_T": None}, "coefficient of x_T in ask 1 must be a finite", False),
    (("asks", 0, "row"), {"x_T": 1e300}, "is beyond 1e", False),
    (("result",), {"D3": 1.0}, "the row of result has 'D3'", True),
    (("noises", 0, "from"), -1.0, "noise 1 must be for an interval", False),
    (("noises", 0, "to"), 1e30, "noise 1 must be for an interval", False),
    (("noises", 0, "draw"), -1, "the draw of noise 1", False),
    (("noises", 0, "stream"), "a" * 101, "the stream of noise 1", False),
    (("noises", 0, "kind"), "pink", "the kind of noise 1 must be white or brownian", False),
    (("noises", 0, "kind"), [], "the kind of noise 1 must be white or brownian", False),
]


def changed(where, value):
    made = copy.deepcopy(GOOD)
    if not where:
        return value
    *path, last = where
    inner = made
    for key in path:
        inner = inner[key]
    inner[last] = value
    return made


def test_the_good_one_is_read_and_says_the_same_when_written(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(GOOD))
    found = read_tableau(path)
    assert fits(GOOD, SCHEMA) and isinstance(found, TableauFile)
    assert json.loads(tableau_text(found)) == GOOD


@pytest.mark.parametrize(("where", "value", "message", "in_schema"), BAD)
def test_others_are_refused_in_one_line(where, value, message, in_schema, tmp_path):
    path = tmp_path / "t.json"
    bad = changed(where, value)
    path.write_text(json.dumps(bad))
    with pytest.raises(ValueError, match="is not a tableau") as caught:
        read_tableau(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))
    assert fits(bad, SCHEMA) == in_schema


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty|not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"format": NaN}', "NaN is not a finite number"),
        ('{"name": "a", "name": "b"}', "the key 'name' comes twice"),
        ('{"name": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"sigmas": [1e999]}', "1e999 is not a finite number"),
        (" " * (2**24 + 1), "too large for a text file"),
        ('{"a":' * 500 + "1" + "}" * 500, "has no"),
    ],
    ids=["empty", "half", "deep", "nan", "twice", "digits", "infinite", "huge", "nested"],
)
def test_hostile_texts_are_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_tableau(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(path))


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="coefficients of x_T, answers and mean in ask 2 sum to"):
        save(tmp_path / "t.json", "reab")
    assert not list(tmp_path.iterdir())


def test_noises_of_two_kinds_are_refused(tmp_path):
    bad = copy.deepcopy(GOOD)
    bad["noises"].append({**bad["noises"][0], "kind": "brownian"})
    (tmp_path / "t.json").write_text(json.dumps(bad))
    with pytest.raises(ValueError, match="all be of one kind"):
        read_tableau(tmp_path / "t.json")


def test_files_that_are_not_there(tmp_path):
    for name in ("none.json", "none/"):
        with pytest.raises(ValueError, match="there is no such file"):
            kdiff.plan(MODEL, str(tmp_path / name))


def test_the_command_line(tmp_path):
    path = tmp_path / "t.json"
    made = kdiff_cli("explain", "heun", "--steps", 2, "--save", path)
    assert made.exit_code == 0 and read_tableau(path).source["sampler"] == "heun"
    again = kdiff_cli("explain", "heun", "--steps", 3, "--save", path)
    assert again.exit_code == 2 and "add --overwrite" in again.stderr
    assert kdiff_cli("explain", "heun", "--steps", 3, "--save", path, "--overwrite").exit_code == 0
    shown = kdiff_cli("explain", path, "--json")
    found, expected = (
        json.loads(kdiff_cli("explain", *words, "--json").stdout)
        for words in ((path,), ("heun", "--steps", 3))
    )
    assert shown.exit_code == 0 and found["order"] is None
    assert [row["sigma"] for row in found["asks"]] == [row["sigma"] for row in expected["asks"]]
    sweep = kdiff_cli(
        "sweep",
        "--model",
        "mnist",
        "--sampler",
        f"{path},euler",
        "--metrics",
        "none",
        "--num",
        2,
        "--dry-run",
    )
    assert "tableau heun, tableau, 3 steps, NFE 5" in sweep.stdout
    out = tmp_path / "out"
    run = kdiff_cli("sample", "--model", "mnist", "--sampler", path, "--num", 2, "--out", out)
    assert run.exit_code == 0, run.output
    assert (
        json.loads((out / "run.json").read_text())["tableau"]["sha256"] == read_tableau(path).sha256
    )
