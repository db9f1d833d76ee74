"""What `tools/measure_auto.py` makes of sweeps' lines."""

import pytest

import kdiff
from kdiff.guidance.questions import Questions
from measure_auto import FD, RMSE, candidates, chosen, merged


def line(sampler, nfe, rmse, fd=None, **planned):
    plan = kdiff.plan(Questions(), sampler, nfe=nfe, **planned)
    metrics = {RMSE: {"value": rmse, "n": 40}}
    if fd is not None:
        metrics[FD] = {"value": fd, "n": 500}
    model = {"name": "cifar10", "sha256": "00"}
    return {
        "key": f"{sampler}{rmse}",
        "cell": {**plan.record(), "model": model},
        "status": "ok",
        "metrics": metrics,
    }


LINES = [
    line("euler", 5, 0.2, 9.0),
    line("ipndm", 5, 0.07, 5.5, final="sigma_min"),
    line("ipndm", 5, 0.05, 5.4, final="sigma_min", first="analytic"),
    line("unipc", 5, 0.3, 1.0, options={"order": 3}),
    line("heun", 3, 0.01, 3.0),
    line("heun", 5, 0.4, 8.0),
]


def test_of_the_nearest_the_best_is_chosen():
    table = chosen(merged(LINES), [4, 5], keep=3)
    assert table["budgets"]["5"] == {
        **{"sampler": "ipndm", "options": {}, "schedule": "karras"},
        **{"final": "sigma_min", "first": "analytic", "figures": {RMSE: 0.05, FD: 5.4}},
    }
    assert table["budgets"]["4"]["sampler"] == "heun"  # its 3 are what 4 pay for
    assert table["candidates"] == 5
    assert table["judged"] == (
        "RMSE to the converged solution (40 seeds), and of the nearest 3 by FD "
        "(cifar10-classifier) of 500 images"
    )
    wide = chosen(merged(LINES), [5], keep=4)["budgets"]["5"]
    assert (wide["sampler"], wide["options"]) == ("unipc", {"order": 3})


def test_figures_of_one_plan_are_put_together():
    rmse, fd = line("euler", 5, 0.2), line("euler", 5, 0.2, 9.0)
    del fd["metrics"][RMSE]
    (found,) = merged([rmse, fd])
    assert found["metrics"].keys() == {RMSE, FD}


def test_guided_and_failed_lines_do_not_count():
    failed = {**LINES[0], "status": "failed"}
    guided = {**LINES[0], "cell": {**LINES[0]["cell"], "guidance": [{"name": "cfg"}]}}
    with pytest.raises(ValueError, match="no sampler of the ODE"):
        chosen(merged([failed, guided]), [5], keep=4)


def test_candidates_draw_no_noise_and_take_both_endings():
    cells = candidates(["euler", "dpmpp_2m_sde"], ["karras"], [5], seeds=2)
    assert len(cells) == 2 * 2 * 2 and all(cell.metrics == ("rmse",) for cell in cells)
    assert {cell.plan.options.get("eta") for cell in cells} == {None, 0.0}
    assert {cell.nfe for cell in cells} == {5}
