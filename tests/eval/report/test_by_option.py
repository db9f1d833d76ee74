"""Tables and curves by the values of an option: which there are, and what stands in them."""

import csv
import io
import json
import re
from typing import Annotated

import pytest

from kdiff.eval.report import across, formats, has_lines, make_tables, page, plots
from kdiff.guidance import GUIDANCE, Guidance
from kdiff.options import Option, options_of
from small_reports import HOSTILE, a_line, a_scale_sweep, guided, report


def cfg(scale):
    return "cfg", {"scale": scale}


def by(sweep, name, metric="FID"):
    (table,) = make_tables(sweep, [metric], across.named(sweep, name))
    return table


def values(table):
    found = {}
    for row, column, figure in table.figures():
        found.setdefault(row.label, {})[column] = figure.value
    return found


def test_a_row_holds_what_differs_in_the_scale_only_whatever_it_costs(sweep_of):
    table = by(a_scale_sweep(sweep_of), "cfg:scale")
    assert table.title == "FID by cfg:scale, cifar10, N = 1,000"
    assert values(table) == {
        "euler (cfg)": {1: 30.0, 2: 20.0, 3: 25.0},
        "heun (cfg)": {1: 29.0, 2: 22.0, 3: 21.0},
    }
    best = [(row.label, column) for row, column, _ in table.figures() if table.is_best(row, column)]
    assert best == [("euler (cfg)", 2), ("heun (cfg)", 3)]
    assert "Columns are values of cfg:scale, all with 4 steps, NFE 4 to 8; bold" in table.caption


def test_steps_and_other_guidance_are_rows_of_their_own_in_order(sweep_of):
    lines = [
        a_line(
            nfe=2 * steps, metrics={"FID": steps + scale}, steps=steps, **guided(cfg(scale), *on)
        )
        for steps in (8, 4)
        for on in ([("interval", {"low": 0.5})], [])
        for scale in (3.0, 1.5)
    ]
    assert values(by(sweep_of(*lines), "scale")) == {
        "euler (4 steps, cfg)": {1.5: 5.5, 3.0: 7.0},
        "euler (8 steps, cfg)": {1.5: 9.5, 3.0: 11.0},
        "euler (4 steps, cfg, interval:low=0.5)": {1.5: 5.5, 3.0: 7.0},
        "euler (8 steps, cfg, interval:low=0.5)": {1.5: 9.5, 3.0: 11.0},
    }


def test_rows_by_nfe_are_in_the_order_of_their_scales(sweep_of):
    scales = (2.0, 1.25, 10.0, 1.5)  # as they finished
    lines = [a_line(metrics={"FID": 9.0}, **guided(cfg(scale))) for scale in scales]
    (table,) = make_tables(sweep_of(a_line(metrics={"FID": 9.0}), *lines))
    assert [row.label for row in table.rows] == ["euler"] + [
        f"euler (cfg:scale={scale})" for scale in sorted(scales)
    ]


def test_labels_leave_out_defaults_but_not_the_first_option(sweep_of, monkeypatch):
    def soft(
        model,
        *,
        scale: Annotated[float, Option("w")] = 1.5,
        low: Annotated[float, Option("from")] = 0.0,
        high: Annotated[float, Option("to")] = 80.0,
    ): ...

    made = Guidance("soft", soft, paper="none", options=options_of(soft))
    monkeypatch.setitem(GUIDANCE, "soft", made)
    every = [
        {"scale": 1.5, "low": 0.0, "high": 80.0},
        {"scale": 1.5, "low": 0.3, "high": 80.0},
        {"scale": 2.0, "low": 0.3, "high": 80.0},
    ]
    lines = [a_line(metrics={"FID": 9.0}, **guided(("soft", one))) for one in every]
    sweep = sweep_of(*lines)
    (table,) = make_tables(sweep)
    assert [row.label for row in table.rows] == [
        *("euler (soft:scale=1.5)", "euler (soft:scale=1.5:low=0.3)"),
        "euler (soft:scale=2.0:low=0.3)",
    ]
    assert "soft:scale=2.0:low=0.3:high=80.0" in formats.to_csv([table])  # which can be typed again
    assert list(values(by(sweep, "scale"))) == ["euler (soft)", "euler (soft:low=0.3)"]


def of_guidance(sweep):
    """The names of what varies enough to be drawn."""
    every = across.of_guidance(sweep)
    return [one.name for one in every if any(map(has_lines, make_tables(sweep, ["FID"], one)))]


def test_guidances_of_one_option_name_share_an_axis(sweep_of):
    lines = [
        a_line(metrics={"FID": value}, **guided((name, {"scale": scale})))
        for name, scale, value in (
            *(("cfg", 1.0, 9.0), ("cfg", 2.0, 8.0)),
            *(("apg", 2.0, 7.0), ("apg", 4.0, 6.0)),
        )
    ]
    sweep = sweep_of(*lines)
    assert of_guidance(sweep) == ["scale"]
    assert values(by(sweep, "SCALE")) == {
        "euler (cfg)": {1: 9.0, 2: 8.0},
        "euler (apg)": {2: 7.0, 4: 6.0},
    }
    assert list(values(by(sweep, "apg:scale"))) == ["euler (apg)"]
    assert "Cells without it: 2, not shown here." in by(sweep, "apg:scale").caption


def test_options_of_one_name_in_one_cell_are_axes_of_their_own(sweep_of, tmp_path):
    lines = [
        a_line(metrics={"FID": 10 * a + b}, **guided(cfg(a), ("slg", {"scale": b})))
        for a in (1.0, 2.0)
        for b in (3.0, 4.0)
    ]
    sweep = sweep_of(*lines)
    assert of_guidance(sweep) == ["cfg:scale", "slg:scale"]
    assert values(by(sweep, "slg:scale")) == {
        "euler (cfg:scale=1.0, slg)": {3: 13.0, 4: 14.0},
        "euler (cfg:scale=2.0, slg)": {3: 23.0, 4: 24.0},
    }
    refused = report(tmp_path, "--x", "scale")
    assert refused.exit_code == 2 and not (tmp_path / "report").exists()
    assert "several options named scale: say cfg:scale or slg:scale" in refused.stderr


def test_a_guidance_that_is_there_twice_has_no_axis(sweep_of, tmp_path):
    twice = [a_line(metrics={"FID": a}, **guided(cfg(a), cfg(a + 1))) for a in (1.0, 2.0)]
    sweep = sweep_of(*twice)
    assert of_guidance(sweep) == []
    refused = report(tmp_path, "--x", "cfg:scale")
    assert refused.exit_code == 2 and "a cell has cfg:scale 2 times" in refused.stderr


def test_what_does_not_vary_within_a_row_is_not_drawn_unless_it_is_asked_for(sweep_of, tmp_path):
    lines = [
        a_line("ddim", metrics={"FID": 9.0 + eta}, options={"eta": eta}, **guided(cfg(1.5)))
        for eta in (0.0, 0.5)
    ]
    sweep = sweep_of(*lines, a_line("euler", metrics={"FID": 9.0}, **guided(cfg(2.0))))
    assert of_guidance(sweep) == []
    assert values(by(sweep, "eta")) == {"ddim (cfg:scale=1.5)": {0: 9.0, 0.5: 9.5}}
    result = report(tmp_path, "--x", "Eta", "--format", "csv,svg")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        *("fid-by-ddim-eta-cifar10-n1000.svg", "tables-by-ddim-eta.csv")
    ]
    assert "### FID by ddim:eta, cifar10, N = 1,000" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--x", "scalle"], "unknown x axis 'scalle'; did you mean scale"),
        (["--x", "apg:scale"], "unknown x axis 'apg:scale'; did you mean"),
        (["--x", "scale", "--budget", "8"], "--budget is for tables by NFE: add --x nfe"),
    ],
)
def test_an_axis_that_there_is_not_is_one_clear_line(sweep_of, tmp_path, arguments, says):
    a_scale_sweep(sweep_of)
    result = report(tmp_path, *arguments)
    assert result.exit_code == 2 and says in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "report").exists()


def test_the_report_has_the_scale_without_asking_and_only_what_is_asked_for(sweep_of, tmp_path):
    a_scale_sweep(sweep_of)
    result = report(tmp_path, "--format", "csv,md,latex,svg,html")
    written = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert written == [
        "fid-against-is-by-cfg-scale-cifar10-n1000.svg",
        *("fid-by-cfg-scale-cifar10-n1000.svg", "fid-cifar10-n1000.svg"),
        *("is-by-cfg-scale-cifar10-n1000.svg", "is-cifar10-n1000.svg", "report.html"),
        *("tables-by-cfg-scale.csv", "tables.csv", "tables.md", "tables.tex"),
    ]
    row = "| `euler (cfg)` | 30.0 ± 0.5 | **20.0 ± 0.5** |     25.0 ± 0.5 |"
    assert row in result.stdout and row in (tmp_path / "report" / "tables.md").read_text()
    assert r"\textbf{21.0 $\pm$ 0.5} \\" in (tmp_path / "report" / "tables.tex").read_text()
    budget = report(tmp_path, "--budget", "8", "--format", "md")
    assert "NFE ≤ 8" in budget.stdout and row in budget.stdout
    only = report(tmp_path, "--x", "nfe", "--out", tmp_path / "nfe")
    assert only.exit_code == 0 and "scale 2" not in only.stdout
    assert not list((tmp_path / "nfe").glob("*scale*"))


def test_no_name_of_an_option_breaks_out_of_its_place(sweep_of):
    lines = [
        a_line(
            metrics={"FID": value}, **guided((HOSTILE, {HOSTILE: value}), ("big", {"n": 10**400}))
        )
        for value in (1.0, 2.0)
    ]
    sweep = sweep_of(*lines)
    (one,) = across.of_guidance(sweep)
    tables = make_tables(sweep, ["FID"], one)
    lines = [line for line in formats.to_markdown(tables).splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert list(map(len, rows)) == [3, 3, 3]
    assert not any(re.search(r"(?<!\\)[`*<>~&#$]", heading) for heading in rows[0])
    assert "<script>alert" not in page.render(sweep, tables)


def test_csv_reads_back_with_the_value_of_each_cell(sweep_of):
    table = by(a_scale_sweep(sweep_of), "scale")
    lines = list(csv.DictReader(io.StringIO(formats.to_csv([table]))))
    assert {line["by"] for line in lines} == {"cfg:scale"}
    read = {(x["sampler"], float(x["at"]), int(x["nfe"]), x["best"]): x["value"] for x in lines}
    assert {key: float(value) for key, value in read.items()} == {
        **{("euler", 1, 4, "0"): 30.0, ("euler", 2, 8, "1"): 20.0, ("euler", 3, 8, "0"): 25.0},
        **{("heun", 1, 4, "0"): 29.0, ("heun", 2, 8, "0"): 22.0, ("heun", 3, 8, "1"): 21.0},
    }


def test_the_page_has_every_curve_and_marks_the_best_of_a_row(sweep_of):
    sweep = a_scale_sweep(sweep_of)
    every = [*make_tables(sweep), *make_tables(sweep, (), across.named(sweep, "scale"))]
    text = page.render(sweep, every)
    views = json.loads(text.split('id="data">')[1].split("</script>")[0])["views"]
    titles = [plot.title.replace(", cifar10", "") for plot in plots.plots(every)]
    assert [view["choice"] for view in views] == titles
    assert text.count('<section class="view"') == len(views) == 5
    x, rows = views[2]["x"], views[2]["rows"]
    assert (x["name"], x["labels"]) == ("cfg:scale", ["1", "2", "3"])
    best = [[point["x"] for point in row["points"] if point.get("best")] for row in rows]
    assert best == [[2.0], [3.0]] and rows[0]["points"][0]["place"] == "scale 1, NFE 4"
    assert not any("best" in point for row in views[0]["rows"] for point in row["points"])
    assert '"title": "euler (cfg:scale=2.0), NFE 8"' in text
    assert '"title": "euler (cfg), scale 2, NFE 8"' in page.render(sweep, every[2:])
