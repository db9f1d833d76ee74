"""docs/samplers.md and docs/schedules.md have everything that is registered, as it is declared."""

import re

import pytest

import kdiff
from kdiff.samplers import REGISTRY
from kdiff.schedules import SCHEDULES
from places import ROOT


def rows(page):
    """name -> column -> text, of all tables of the page whose first column is `name`."""
    found, columns = {}, []
    for line in (ROOT / "docs" / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and cells[0] == "name":
            columns = cells
        elif cells and re.fullmatch(r"`\w+`", cells[0]):
            name = cells[0].strip("`")
            assert name not in found, name
            found[name] = dict(zip(columns, cells, strict=True))
    return found


ZOO = rows("samplers.md")


def calls(sampler):
    """The evaluations in a step and, if there are others, in the first."""
    if sampler.limit is not None:
        return "adaptive"
    counts = [sampler.nfe(steps, "sigma_min") for steps in (1, 2, 3)]
    more = sampler.first_calls > sampler.calls
    return f"{counts[2] - counts[1]}" + (f", first {counts[0]}" if more else "")


def test_the_page_has_every_sampler_of_kdiff():
    ours = {name for name, s in REGISTRY.items() if s.function.__module__.startswith("kdiff.")}
    assert ours <= set(ZOO) <= set(REGISTRY)


@pytest.mark.parametrize("name", ZOO)
def test_a_sampler_is_on_the_page_as_it_is_declared(name):
    sampler, row = REGISTRY[name], ZOO[name]
    assert row["order"] == str(sampler.order(sampler.with_defaults()))
    assert row["calls"] == calls(sampler)
    assert row["noise"] == (sampler.noise or "none") + (
        "" if sampler.noise is None or sampler.stochastic() else ", off"
    )
    stands = sampler.sde_orders(sampler.with_defaults()) if sampler.strong else ()
    if "strong / weak" in row:
        assert row["strong / weak"] == " / ".join(map(str, stands))
    assert row["when to use it"] and row["source"]


def test_the_page_has_every_schedule_of_kdiff_and_its_settings():
    page = rows("schedules.md")
    ours = {n for n, s in SCHEDULES.items() if s.function.__module__.startswith("kdiff.")}
    assert ours <= set(page) <= set(SCHEDULES)
    for name, row in page.items():
        assert row["formula"] and row["source"]
        settings = {*SCHEDULES[name].settings} - {"flow"}
        assert set(re.findall(r"`(\w+)`", row["settings"])) == settings, name


def test_the_example_of_inversion_comes_back(capsys):
    text = (ROOT / "docs/samplers.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    scope = {}
    exec(code, scope)
    assert scope["latents"].std() == pytest.approx(kdiff.load("mnist").sigma_max, rel=0.05)
    assert (scope["again"] - scope["images"]).abs().mean() < 0.01
