"""Tables of a report: what stands together in one, and what its title and its rows say."""

import json

import pytest

from kdiff.eval.evaluation import METRICS, Metric
from kdiff.eval.report import make_tables, page
from kdiff.eval.report.cells import higher_is_better
from small_reports import a_line


def test_figures_of_different_n_or_reference_are_never_in_one_table(sweep_of):
    other = {"name": "cifar10-test", "n": 10000, "sha256": "d" * 64}
    sweep = sweep_of(
        a_line(metrics={"FID": 12.0}),
        a_line(n=5000, metrics={"FID": 5.0}),
        a_line("unipc", metrics={"FID": 14.0}, reference=other),
    )
    tables = make_tables(sweep)
    assert [[row.label for row in table.rows] for table in tables] == [
        ["euler"],
        ["euler"],
        ["unipc"],
    ]
    assert [table.title for table in tables] == [
        "FID, cifar10, against cifar10, N = 1,000",
        "FID, cifar10, against cifar10, N = 5,000",
        "FID, cifar10, against cifar10-test, N = 1,000",
    ]


def test_a_title_says_what_tells_it_from_others_of_its_metric_only(sweep_of):
    """Two networks have references of one name; one of them has two, and another resize mode."""
    small = {"name": "small", "resize": None, "weights": "f" * 64}
    clean = {"name": "inception", "resize": "clean", "weights": "b" * 64}
    own = {"name": "cifar10", "n": 50000, "sha256": "d" * 64}
    judged = {"features": small, "reference": own}
    both = [a_line(metrics={"FID": 12.0}), a_line(metrics={"FD (small)": 1.0}, **judged)]
    titles = [table.title for table in make_tables(sweep_of(*both))]
    assert titles == ["FID, cifar10, N = 1,000", "FD (small), cifar10, N = 1,000"]
    third = a_line(metrics={"FID": 11.0}, features=clean, reference=own)
    titles = [table.title for table in make_tables(sweep_of(*both, third))]
    assert titles == [
        "FID, cifar10, resize legacy_tensorflow, against cifar10 cccccccc, N = 1,000",
        "FID, cifar10, resize clean, against cifar10 dddddddd, N = 1,000",
        "FD (small), cifar10, N = 1,000",
    ]


def test_what_needs_no_network_is_one_table_whatever_else_was_measured(sweep_of):
    """Euler twice, with and without FID, one seed of three measured again; Heun without only."""
    nothing = {"features": None, "reference": None}
    lines = [
        a_line(metrics={"FID": 12.0, "RMSE": 0.3, "seconds": 5.0}),
        a_line(metrics={"RMSE": 0.1, "seconds": 4.0}, **nothing),
        a_line(first=1000, metrics={"RMSE": 0.5, "seconds": 6.0}, **nothing),
        a_line("heun", metrics={"RMSE": 0.2, "seconds": 7.0}, **nothing),
    ]
    lines[0]["finished"] = "2026-11-22T00:00:00Z"  # written first, but the latest
    sweep = sweep_of(*lines)
    tables = make_tables(sweep)
    assert [table.title for table in tables] == [
        f"{metric}, cifar10, N = 1,000" for metric in ("FID", "RMSE", "seconds")
    ]
    found = [{row.label: (f.value, f.repeats) for row, _, f in table.figures()} for table in tables]
    assert found == [
        {"euler": (12.0, 1)},
        {"euler": (pytest.approx(0.4), 2), "heun": (0.2, 1)},
        {"euler": (5.5, 2), "heun": (7.0, 1)},
    ]
    assert "reference" not in tables[1].caption and "network" not in tables[1].caption
    data = page.render(sweep, tables).split('id="data">')[1].split("</script>")[0]
    assert [len(view["rows"]) for view in json.loads(data)["views"]] == [1, 2, 2]


def test_a_figure_of_the_first_images_of_more_and_of_fewer(sweep_of):
    rmse = {"RMSE": {"value": 0.5, "error": None, "n": 64}}
    sweep = sweep_of(a_line(metrics=rmse), a_line("heun", n=500, metrics=rmse))
    titles = [table.title for table in make_tables(sweep)]
    assert titles == ["RMSE, cifar10, N = 64 of 1,000", "RMSE, cifar10, N = 64 of 500"]
    (single,) = make_tables(sweep_of(a_line(metrics=rmse)))
    assert single.title == "RMSE, cifar10, N = 64"


def test_a_metric_says_itself_which_way_is_better(sweep_of, monkeypatch):
    score = Metric("CLIP score", "", "pool", "", lambda *_: [], higher_is_better=True)
    monkeypatch.setitem(METRICS, "clip", score)
    for name, higher in [("CLIP score", True), ("CLIP score (net)", True), ("IS-openai", True)]:
        assert higher_is_better(name) is higher
    for name in ("FID", "FD (net)", "KID", "sFID", "FID_inf", "RMSE", "seconds", "nobody's"):
        assert not higher_is_better(name)
    (table,) = make_tables(
        sweep_of(a_line(metrics={"CLIP score": 0.2}), a_line("heun", metrics={"CLIP score": 0.3}))
    )
    assert table.best(10).value == 0.3


def test_two_models_of_one_name_are_told_apart(sweep_of):
    other = {"name": "cifar10", "sha256": "e" * 64}
    sweep = sweep_of(a_line(metrics={"FID": 12.0}), a_line(metrics={"FID": 11.0}, model=other))
    assert [t.model for t in make_tables(sweep)] == ["cifar10 aaaaaaaa", "cifar10 eeeeeeee"]


def test_rows_name_what_differs_and_nothing_else(sweep_of):
    sweep = sweep_of(
        a_line(metrics={"FID": 1.0}),
        a_line(metrics={"FID": 2.0}, schedule="exponential"),
        a_line("heun", metrics={"FID": 3.0}, options={"S_churn": 40.0, "S_tmax": "inf"}),
        a_line("unpublished", metrics={"FID": 4.0}, options={"knob": 1}),
    )
    (table,) = make_tables(sweep)
    assert [row.label for row in table.rows] == [
        "euler (karras)",
        "euler (exponential)",
        "heun (S_churn=40.0, karras)",
        "unpublished (knob=1, karras)",
    ]


def test_cells_that_differ_only_in_noise_levels_do_not_hide_each_other(sweep_of):
    lines = [
        a_line(metrics={"FID": 1.0}),
        a_line(metrics={"FID": 2.0}, sigmas=[160.0, 1.0, 0.0]),
        a_line(metrics={"FID": 3.0}, sigmas=[160.0, 2.0, 1.0, 0.0]),
        a_line(nfe=20, metrics={"FID": 4.0}),
        a_line("heun", metrics={"FID": 5.0}),
    ]
    (table,) = make_tables(sweep_of(*lines))
    assert [(row.label, [table.text(row, nfe) for nfe in (10, 20)]) for row in table.rows] == [
        ("euler [80 to 1]", ["1.000", "4.000"]),
        ("euler [160 to 1] [1]", ["2.000", "—"]),
        ("euler [160 to 1] [2]", ["3.000", "—"]),
        ("heun", ["5.000", "—"]),
    ]
