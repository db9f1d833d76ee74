"""The page about peers' mistakes has a section for each case of the tool that measures them."""

import re

import pytest

import exact_ode
import show_mistake
from places import ROOT


def test_the_page_has_each_case():
    page = (ROOT / "docs/peers.md").read_text()
    sections = re.findall(r"^## `(\w+)`", page, re.MULTILINE)
    assert sections == list(show_mistake.CASES)
    summary = page.split("## ", 1)[0]
    for name, case in show_mistake.CASES.items():
        assert f"`{name}`" in summary and case.peers in summary, name


def test_an_order_is_measured():
    published, corrected = (solve for _, solve in show_mistake.CASES["skrample_rk"].rows)
    steps = (16, 32, 64)
    for solve, order in ((published, 2), (corrected, 4)):
        errors = [exact_ode.error(solve, n) for n in steps]
        assert exact_ode.order(steps, errors) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("name", ["langevin_batch", "comfyui_ddim_uniform", "euler_maruyama"])
def test_the_page_has_the_figures_of_the_reports(name, capsys):
    assert show_mistake.main([name]) == 0
    page = (ROOT / "docs/peers.md").read_text()
    section = page.split(f"## `{name}`", 1)[1].split("\n## ", 1)[0]
    figures = re.findall(r"-?\d+\.\d{3,}", capsys.readouterr().out)
    assert figures and all(figure in section for figure in figures)


ORDERS = [n for n, case in show_mistake.CASES.items() if isinstance(case, show_mistake.Orders)]


@pytest.mark.parametrize("name", ORDERS)
def test_the_page_has_the_orders(name, capsys):
    """The errors at 16, 64 and 256 steps of each row, and its order, in the section and on top."""
    assert show_mistake.main([name]) == 0
    page = (ROOT / "docs/peers.md").read_text()
    section = page.split(f"## `{name}`", 1)[1].split("\n## ", 1)[0]
    _, _, *lines = capsys.readouterr().out.strip().splitlines()
    rows = [line.split()[-6:] for line in lines if line.startswith(("published", "corrected"))]
    assert rows
    for first, _, middle, _, last, order in rows:
        assert f"| {first} | {middle} | {last} | {order} |" in section
    (top,) = re.findall(rf"^\| `{name}` \|.*", page.split("\n## ", 1)[0], re.MULTILINE)
    assert rows[-1][-1] in top


def test_a_name_that_is_none_is_said(capsys):
    assert show_mistake.main(["dpm_solver_4"]) == 2
    assert "no case 'dpm_solver_4'; there are dpm_solver_3, " in capsys.readouterr().err
