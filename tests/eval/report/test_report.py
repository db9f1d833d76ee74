"""Reports of sweeps: what the tables say, read back from the files that a person gets."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kdiff.cli.report_command import command
from kdiff.eval.evaluation import METRICS, Metric
from kdiff.eval.report import Figure, curves, formats, make_tables, page, read_sweep, within
from kdiff.eval.report.cells import higher_is_better
from kdiff.eval.report.digits import digits

HOSTILE = "</script><script>alert(1)</script> $x^{2$ ~50% & a|b `c` {\\evil}"


def a_line(sampler="euler", nfe=10, first=0, n=1000, metrics=None, error=None, **cell):
    """One cell as `kdiff sweep` writes it; a metric is its value or all of it."""
    cell = {
        "model": {"name": "cifar10", "sha256": "a" * 64},
        "sampler": sampler,
        "options": {},
        "schedule": "karras",
        "final": "zero",
        "steps": nfe,
        "nfe": nfe,
        "sigmas": [80.0, 1.0, 0.0],
        "seeds": {"first": first, "n": n},
        "metrics": ["FID"],
        "features": {"name": "inception", "resize": "legacy_tensorflow", "weights": "b" * 64},
        "reference": {"name": "cifar10", "n": 50000, "sha256": "c" * 64},
        **cell,
    }
    values = {
        name: value if isinstance(value, dict) else {"value": value, "error": None, "n": n}
        for name, value in (metrics or {}).items()
    }
    return {
        "key": json.dumps(cell),
        "cell": cell,
        "status": "failed" if error else "ok",
        "error": error,
        "metrics": values,
        "grid": None,
        "noise_floor": None,
        "environment": {"torch": "2.9.1"},
        "finished": "2026-11-21T17:00:00Z",
    }


@pytest.fixture
def sweep_of(tmp_path):
    """sweep_of(*lines, tail=""): the folder with these cells, and what it reads as."""

    def write(*lines, tail=""):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "cells.jsonl").write_text(text + tail)
        (tmp_path / "sweep.json").write_text(json.dumps({"command": "kdiff sweep --nfe 10"}))
        return read_sweep(tmp_path)

    return write


def report(folder, *arguments):
    return CliRunner().invoke(command, [str(folder), *map(str, arguments)])


def test_repeats_become_a_mean_and_its_standard_error(sweep_of):
    values = [12.0, 13.0, 17.0]
    lines = [a_line(first=1000 * i, metrics={"FID": v}) for i, v in enumerate(values)]
    (result,) = sweep_of(*lines).results
    (figure,) = result.figures
    assert (figure.metric, figure.n, figure.repeats) == ("FID", 1000, 3)
    assert figure.value == pytest.approx(14.0)
    assert figure.error == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))


def test_one_repeat_keeps_its_own_error_and_its_own_n(sweep_of):
    rmse = {"value": 0.5, "error": None, "n": 64}
    line = a_line(metrics={"IS": {"value": 9.0, "error": 0.2, "n": 1000}, "RMSE": rmse})
    (result,) = sweep_of(line).results
    assert result.figures == [Figure("IS", 1000, 9.0, 0.2, 1), Figure("RMSE", 64, 0.5, None, 1)]


def test_the_same_seeds_evaluated_again_are_no_second_repeat(sweep_of):
    again = a_line(metrics={"FID": 12.0, "KID": 0.1})
    again["cell"]["metrics"], again["key"] = ["FID", "KID"], "another"
    (result,) = sweep_of(a_line(metrics={"FID": 12.0}), again).results
    assert [(f.metric, f.repeats) for f in result.figures] == [("FID", 1), ("KID", 1)]


def test_seeds_that_overlap_are_no_second_repeat(sweep_of):
    lines = [a_line(first=first, metrics={"FID": 10.0 + first}) for first in (0, 42, 1000)]
    sweep = sweep_of(*lines)
    (result,) = sweep.results
    assert [(f.value, f.repeats) for f in result.figures] == [(510.0, 2)]
    assert [failure.error for failure in sweep.failures] == [
        "seeds 42 to 1041 overlap with others here, and are no repeat"
    ]


def test_the_last_line_of_a_key_wins_but_no_failure_after_a_success(sweep_of):
    failed, good, again = (
        a_line(error="no memory"),
        a_line(metrics={"FID": 11.0}),
        a_line(metrics={"FID": 12.0}),
    )
    sweep = sweep_of(failed, good, again, failed)
    assert not sweep.failures
    assert sweep.results[0].figure("FID", 1000).value == 12.0


def test_cells_of_different_n_are_no_repeats_even_where_a_metric_has_one_n(sweep_of):
    rmse = {"RMSE": {"value": 0.5, "error": None, "n": 64}}
    sweep = sweep_of(a_line(metrics=rmse), a_line(first=1000, n=5000, metrics=rmse))
    assert [result.figures[0].repeats for result in sweep.results] == [1, 1]


def test_shards_are_read_together(tmp_path):
    for i, sampler in enumerate(("euler", "heun"), 1):
        line = json.dumps(a_line(sampler, metrics={"FID": 10.0 * i}))
        (tmp_path / f"cells-{i}-of-2.jsonl").write_text(line + "\n")
    assert [r.cell["sampler"] for r in read_sweep(tmp_path).results] == ["euler", "heun"]


def test_torn_lines_are_not_there_and_the_middle_one_is_named(sweep_of, tmp_path):
    whole = a_line(metrics={"FID": 12.0})
    torn = json.dumps(a_line("heun", metrics={"FID": 11.0}))[:-30]
    assert [r.cell["sampler"] for r in sweep_of(whole, tail=torn).results] == ["euler"]
    sweep_of(whole, tail=torn + "\n" + json.dumps(a_line("ddim", metrics={"FID": 9.0})) + "\n")
    result = report(tmp_path, "--format", "md")
    assert result.exit_code == 0 and "ddim" in result.stdout and "heun" not in result.stdout
    file = tmp_path / "cells.jsonl"
    assert result.stderr == f"{file}, line 2 is passed over: it is not JSON\n"


def test_a_figure_that_is_no_number_is_a_failure_and_never_the_best(sweep_of):
    broken = a_line("heun", metrics={"FID": float("nan")})
    sweep = sweep_of(a_line(metrics={"FID": 12.0}), broken)
    assert [f.error for f in sweep.failures] == ["FID is nan"]
    (table,) = make_tables(sweep)
    assert [table.text(row, 10) for row in table.rows] == ["12.00", "failed"]


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


def test_a_budget_has_of_each_row_the_most_evaluations_within_it(sweep_of, tmp_path):
    cells = [("euler", 4, 9.0), ("euler", 5, 8.0), ("euler", 10, 3.0), ("heun", 3, 7.0)]
    cells += [("heun", 9, 2.0), ("heun", 11, 1.0), ("ddim", 40, 0.5)]
    lines = [a_line(name, nfe=nfe, metrics={"FID": v}) for name, nfe, v in cells]
    table, other = make_tables(sweep_of(*lines, a_line("ddim", nfe=39, metrics={"KID": 0.1})))
    assert not within(other, [10, 5]).rows
    short = within(table, [10, 5])
    assert [[short.text(row, nfe) for nfe in short.nfes] for row in short.rows] == [
        ["8.000", "3.000"],
        ["7.000 (NFE 3)", "2.000 (NFE 9)"],
    ]
    assert list(map(short.heading, short.nfes)) == ["NFE ≤ 5", "NFE ≤ 10"]
    assert [short.is_best(row, 10) for row in short.rows] == [False, True]
    eight = within(table, [8])
    assert [eight.text(row, 8) for row in eight.rows] == ["8.000 (NFE 5)", "7.000 (NFE 3)"]


def test_tables_by_budget_are_those_that_are_shown(sweep_of, tmp_path):
    cells = [("euler", 5, 8.0), ("euler", 10, 3.0), ("heun", 3, 7.0), ("heun", 9, 2.0)]
    lines = [a_line(name, nfe=nfe, metrics={"FID": v}) for name, nfe, v in cells]
    sweep_of(*lines, a_line("ddim", nfe=40, metrics={"KID": 0.1}))
    result = report(tmp_path, "--budget", "10, 5,5", "--format", "csv,md,latex,svg,html")
    assert result.exit_code == 0 and "KID" not in result.stdout
    assert (tmp_path / "report/tables.csv").read_text().count("\n") == 1 + len(cells) + 1
    assert "| `heun`  | **7.000 (NFE 3)** | **2.000 (NFE 9)** |" in result.stdout
    assert r"sampler & NFE $\leq$ 5 &" in (tmp_path / "report/tables.tex").read_text()


def test_only_the_samplers_that_were_asked_for(sweep_of, tmp_path):
    names = ("euler", "heun", "euler_ancestral")
    sweep_of(*(a_line(name, metrics={"FID": 1.0 + i}) for i, name in enumerate(names)))
    result = report(tmp_path, "--sampler", "Euler a, heun", "--format", "md,csv,html")
    shown = [line.split("`")[1] for line in result.stdout.splitlines() if line.startswith("| `")]
    assert shown == ["euler_ancestral", "heun"]
    assert "| `heun`            | **2.000** |" in result.stdout
    missing = report(tmp_path, "--sampler", "heun,lms")
    assert missing.exit_code == 2
    assert "the sweep has no lms; it has euler, heun, euler_ancestral" in missing.stderr
    unknown = report(tmp_path, "--sampler", "hoin")
    assert unknown.exit_code == 2 and "heun" in unknown.stderr


def test_a_table_by_budget_says_what_is_in_it(sweep_of):
    """Not what was in the whole: the one repeat at NFE 10 is not one of three."""
    lines = [a_line(nfe=20, first=1000 * i, metrics={"FID": 3.0 + i}) for i in range(3)]
    lines.append(a_line(metrics={"FID": {"value": 4.0, "error": 0.2, "n": 1000}}))
    (table,) = make_tables(sweep_of(*lines))
    assert "of 3 repeats" in table.caption
    assert "± its evaluation's own error" in within(table, [10]).caption


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ("3", "no figure is within the budget; the least NFE is 10"),
        ("0,10", "--budget takes numbers of evaluations from 1 on, not '0,10'"),
        ("ten", "--budget takes whole numbers such as 5,10,20, not 'ten'"),
        (",", "--budget takes whole numbers"),
    ],
)
def test_a_budget_that_is_none_is_one_clear_line(sweep_of, tmp_path, budget, says):
    sweep_of(a_line(metrics={"FID": 12.0}))
    result = report(tmp_path, "--budget", budget)
    assert result.exit_code == 2 and says in result.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("metric", "best"),
    [("FID", "euler"), ("IS", "heun"), ("IS (cifar10-classifier)", "heun"), ("IS-openai", "heun")],
)
def test_the_best_of_a_column_is_bold_in_its_metrics_direction(sweep_of, metric, best):
    lines = [a_line(s, metrics={metric: v}) for s, v in (("euler", 3.0), ("heun", 4.0))]
    alone = a_line("heun", nfe=20, metrics={metric: 2.0})
    (table,) = make_tables(sweep_of(*lines, alone))
    assert [row.label for row in table.rows if table.is_best(row, 10)] == [best]
    assert not any(table.is_best(row, 20) for row in table.rows)


def test_what_cannot_be_told_from_the_best_by_its_digits_is_best_too(sweep_of):
    figures = {"euler": (4.20, 0.8), "heun": (4.24, 0.8), "ddim": (4.21, 0.03), "unipc": (4.3, 0.8)}
    lines = [
        a_line(name, metrics={"FID": {"value": value, "error": error, "n": 1000}})
        for name, (value, error) in figures.items()
    ]
    (table,) = make_tables(sweep_of(*lines))
    best = {row.label for row in table.rows if table.is_best(row, 10)}
    assert best == {"euler", "heun", "ddim"}


@pytest.mark.parametrize(
    ("value", "error", "printed"),
    [
        (12.3456, 0.2, ("12.35", "0.20")),
        (12.3456, 0.41, ("12.3", "0.4")),
        (9.0612, 0.0123, ("9.061", "0.012")),
        (321.9, 12.0, ("322", "12")),
        (3.150842, None, ("3.151", None)),
        (0.00123456, None, ("0.001235", None)),
        (43210.4, None, ("43210", None)),
        (1.5e-7, 2e-9, ("1.500e-07", "2.0e-09")),
        (12.3456789, 1e-12, ("12.3457", "1e-12")),
        (-0.012, 0.02, ("-0.012", "0.020")),
        (0.0, None, ("0", None)),
    ],
)
def test_a_value_has_the_digits_that_its_error_allows(value, error, printed):
    assert digits(Figure("FID", 1000, value, error, 1)) == printed


def a_full_sweep(sweep_of):
    lines = [
        a_line(sampler, nfe, first, metrics={"FID": value + first / 1000 + nfe / 10})
        for sampler, value in (("euler", 30.0), (HOSTILE, 20.0))
        for nfe in (5, 10)
        for first in (0, 1000)
    ]
    lines[0]["noise_floor"] = {"FID": 18.0}
    return sweep_of(*lines, a_line("heun", 9, error="not finite\nat step 3"))


def expected():
    """Sampler, NFE -> mean; the two repeats lie one apart, so the standard error is 0.5."""
    return {
        (sampler, nfe): value + 0.5 + nfe / 10
        for sampler, value in (("euler", 30.0), (HOSTILE, 20.0))
        for nfe in (5, 10)
    }


def test_csv_reads_back_with_every_figure_and_failure(sweep_of):
    text = formats.to_csv(make_tables(a_full_sweep(sweep_of)))
    lines = list(csv.DictReader(io.StringIO(text)))
    good = [line for line in lines if line["status"] == "ok"]
    read = {(line["sampler"], int(line["nfe"])): float(line["value"]) for line in good}
    assert read == pytest.approx(expected())
    assert {float(line["error"]) for line in good} == {0.5}
    assert {line["n"] for line in lines} == {"1000"}
    assert {line["sampler"] for line in lines if line["best"] == "1"} == {HOSTILE}
    (failed,) = [line for line in lines if line["status"] == "failed"]
    assert (failed["sampler"], failed["reason"]) == ("heun", "not finite at step 3")


def test_markdown_reads_back_and_nothing_breaks_out_of_its_cell(sweep_of):
    text = formats.to_markdown(make_tables(a_full_sweep(sweep_of)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert rows[0] == ["sampler", "NFE 5", "NFE 9", "NFE 10"]
    assert set(map(len, rows)) == {4}
    assert rows[2] == ["`euler`", "31.0 ± 0.5", "—", "31.5 ± 0.5"]
    assert rows[4] == [
        "`` " + HOSTILE.replace("|", "\\|") + " ``",
        "**21.0 ± 0.5**",
        "—",
        "**21.5 ± 0.5**",
    ]
    assert rows[3] == ["`heun`", "—", "failed", "—"]
    assert "N = 1,000 images in each of 2 repeats" in text
    assert "Noise floor: about 18, what" in text


def test_titles_and_captions_are_escaped_too(sweep_of):
    hostile = {"name": HOSTILE, "sha256": "a"}
    tables = make_tables(sweep_of(a_line(metrics={"FID": 1.0}, model=hostile, reference=hostile)))
    title, _, *_, caption = formats.to_markdown(tables).strip().split("\n")
    for text in (title.removeprefix("### "), caption):
        assert HOSTILE in re.sub(r"\\([^a-z])", r"\1", text)
        assert not re.search(r"(?<!\\)[`*<>~&#$]", text)
    caption = re.search(r"\\caption{(.*)}\n", formats.to_latex(tables)).group(1)
    assert not re.search(r"(?<!\\)[&%$#_^]", caption.replace(r"$\pm$", ""))


def test_latex_reads_back_and_no_name_is_a_command(sweep_of):
    text = formats.to_latex(make_tables(a_full_sweep(sweep_of)))
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    rows = [re.split(r"(?<!\\)&", line) for line in body.splitlines()[1:]]
    assert set(map(len, rows)) == {4}
    assert [cell.strip() for cell in rows[0]] == [
        *("euler", r"31.0 $\pm$ 0.5", "---"),
        r"31.5 $\pm$ 0.5 \\",
    ]
    assert rows[2][1].strip() == r"\textbf{21.0 $\pm$ 0.5}"
    name = rows[2][0]
    for command_, character in (
        *((r"\textbackslash{}", "\0"), (r"\textasciicircum{}", "^"), (r"\textbar{}", "|")),
        *((r"\textless{}", "<"), (r"\textgreater{}", ">")),
        (r"\textasciitilde{}", "~"),
    ):
        name = name.replace(command_, character)
    assert not re.search(r"(?<!\\)[&%$#_{}]", name), name  # whatever is left is escaped
    assert re.sub(r"\\(.)", r"\1", name).replace("\0", "\\").strip() == HOSTILE
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_curves_are_the_same_bytes_each_time_and_take_any_name(sweep_of, suffix):
    (table,) = make_tables(a_full_sweep(sweep_of))
    picture = curves.draw(table, suffix)
    assert picture == curves.draw(table, suffix)
    if suffix == "png":
        assert min(Image.open(io.BytesIO(picture)).size) > 400
    else:
        assert b"<dc:date>" not in picture


def test_no_two_of_32_rows_look_the_same():
    assert len({curves.look(i) for i in range(32)}) == 32


def test_value_axis_is_logarithmic_for_distances_and_not_for_shares(sweep_of):
    values = {"FID": 5.0, "KID": -0.001, "recall": 0.1}
    more = {"FID": 50.0, "KID": 0.1, "recall": 0.6}
    tables = make_tables(sweep_of(a_line(metrics=values), a_line(nfe=5, metrics=more)))
    axes = {table.metric: curves.value_axis(table) for table in tables}
    assert {metric: axis.log for metric, axis in axes.items()} == {
        **{"FID": True, "KID": False, "recall": False}
    }
    for metric, axis in axes.items():
        assert axis.low < values[metric] < axis.high
        assert axis.low < more[metric] < axis.high
        assert len(axis.ticks) >= 3 and all(axis.low <= tick <= axis.high for tick in axis.ticks)


def test_the_page_escapes_what_it_shows_and_holds_its_pictures(sweep_of, tmp_path):
    line = a_line(HOSTILE, metrics={"FID": 12.0})
    line["grid"] = "grid.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "grid.png")
    sweep = sweep_of(line, a_line("heun", error=HOSTILE))
    text = page.render(sweep, make_tables(sweep))
    assert "<script>alert" not in text
    assert text.count("</script>") == 2  # the data's and the program's
    data = text.split('id="data">')[1].split("</script>")[0]
    view = json.loads(data)["views"][0]
    assert view["rows"][-1]["label"] == HOSTILE
    assert json.loads(data)["results"][0]["grid"].startswith("data:image/png;base64,iVBOR")
    assert not re.search(r'(src|href)="(?!#|data:)', text) and "url(" not in text
    assert text == page.render(sweep, make_tables(sweep))


def test_what_is_not_a_picture_is_not_embedded(sweep_of, tmp_path):
    line = a_line(metrics={"FID": 12.0}) | {"grid": "grid.png"}
    (tmp_path / "grid.png").write_text("<svg onload=alert(1)>")
    sweep = sweep_of(line)
    assert '"grid": null' in page.render(sweep, make_tables(sweep))


def test_report_writes_every_format_and_prints_the_table(sweep_of, tmp_path):
    a_full_sweep(sweep_of)
    result = report(tmp_path)
    assert result.exit_code == 0, result.output
    written = [Path(line) for line in result.output.splitlines() if line.startswith(str(tmp_path))]
    assert sorted(path.name for path in written) == [
        *("fid-cifar10-n1000.png", "fid-cifar10-n1000.svg", "report.html"),
        *("tables.csv", "tables.md", "tables.tex"),
    ]
    assert {path.parent for path in written} == {tmp_path / "report"}
    assert "| `euler`" in result.output
    assert "failed: heun, NFE 9: not finite at step 3" in result.output


def test_report_writes_what_it_is_asked_for(sweep_of, tmp_path):
    sweep_of(a_line(metrics={"FID": 12.0, "IS": 9.0}))
    out = tmp_path / "elsewhere"
    result = report(tmp_path, "--format", "md,svg", "--metric", "is", "--out", out)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == ["is-cifar10-n1000.svg", "tables.md"]
    assert "FID" not in (out / "tables.md").read_text()


def test_a_sweep_where_all_failed_still_gives_a_page(sweep_of, tmp_path):
    sweep_of(a_line(error="no memory"))
    (tmp_path / "sweep.json").unlink()  # and without it
    result = report(tmp_path)
    assert result.exit_code == 1 and result.stderr == "Error: no cell has a figure\n"
    assert "failed: euler, NFE 10: no memory" in result.stdout
    assert "no memory" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "FDI"], "unknown metric 'FDI'; did you mean FID?"),
        (["--format", "htm"], "unknown format 'htm'; did you mean html?"),
    ],
)
def test_a_misspelt_name_is_one_line_with_a_suggestion(sweep_of, tmp_path, arguments, said):
    sweep_of(a_line(metrics={"FID": 12.0}))
    result = report(tmp_path, *arguments)
    assert result.exit_code == 2 and f"Error: {said}" in result.output
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no cells in"),
        ("", "no cells in"),
        ('{"key": "torn', "no cells in"),
        ("nonsense\n", "line 1 is passed over: it is not JSON"),
        ("[]\n", "line 1 is passed over: it is not an object"),
        ('{"key": "a", "cell": {}}\n', "its cell has no model, nfe, sampler, seeds"),
    ],
)
def test_bad_input_is_one_line(tmp_path, text, said):
    if text is not None:
        (tmp_path / "cells.jsonl").write_text(text)
    result = report(tmp_path)
    assert result.exit_code == 2 and said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("text", ["{bad", "[]", '{"earlier": [1]}'])
def test_a_damaged_record_of_commands_is_one_line(sweep_of, tmp_path, text):
    sweep_of(a_line(metrics={"FID": 12.0}))
    (tmp_path / "sweep.json").write_text(text)
    result = report(tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path / 'sweep.json'} is damaged; write {{}} into it" in result.stderr
    assert "Traceback" not in result.output


def test_no_folder_and_a_file_as_output_are_one_line(sweep_of, tmp_path):
    result = report(tmp_path / "nowhere")
    assert result.exit_code == 2 and "there is no folder" in result.output
    sweep_of(a_line(metrics={"FID": 12.0}))
    (tmp_path / "taken").write_text("")
    result = report(tmp_path, "--out", tmp_path / "taken")
    assert result.exit_code == 2 and "cannot write into" in result.output


# --- guidance, edits, and adaptive samplers ---


def guided(scale, **others):
    return {"guidance": [{"name": "cfg", "options": {"scale": scale}}], "asks": 5, **others}


def test_guided_rows_are_never_those_without_guidance(sweep_of, tmp_path):
    edits = [{"name": "clamped", "options": {"most": 1.0}}]
    lines = [
        a_line(metrics={"FID": 12.0}),
        a_line(metrics={"FID": 10.0}, **guided(1.5)),
        a_line(metrics={"FID": 11.0}, first=1000, **guided(1.5)),
        a_line(metrics={"FID": 9.0}, **guided(3.0, edits=edits)),
        a_line("heun", error="no memory", **guided(3.0)),
    ]
    (table,) = make_tables(sweep_of(*lines))
    found = {row.label: table.figure(row, 10) for row in table.rows}
    assert {label: figure and figure.value for label, figure in found.items()} == {
        "euler": 12.0,
        "euler (cfg:scale=1.5)": 10.5,
        "euler (cfg:scale=3.0, clamped:most=1.0)": 9.0,
        "heun (cfg:scale=3.0)": None,
    }
    result = report(tmp_path, "--format", "csv,html")
    assert "failed: heun (cfg:scale=3.0), NFE 10: no memory" in result.stdout
    text = (tmp_path / "report" / "tables.csv").read_text()
    rows = [
        (row["guidance"], row["edits"], row["asks"]) for row in csv.DictReader(io.StringIO(text))
    ]
    assert rows == [
        ("", "", ""),
        ("cfg:scale=1.5", "", "5"),
        ("cfg:scale=3.0", "clamped:most=1.0", "5"),
        ("cfg:scale=3.0", "", "5"),
    ]
    assert '["asks of the sampler", "5", ""]' in (tmp_path / "report" / "report.html").read_text()


def test_a_sweep_that_is_guided_throughout_says_so_in_its_rows(sweep_of):
    (table,) = make_tables(sweep_of(a_line(metrics={"FID": 10.0}, **guided(1.5))))
    assert [row.label for row in table.rows] == ["euler (cfg:scale=1.5)"]


def adaptive(mean, most, **others):
    return {**a_line("ode45", **others, nfe=None), "nfe": {"mean": mean, "most": most}}


def test_an_adaptive_row_stands_in_the_column_that_pays_for_its_mean(sweep_of):
    lines = [
        a_line(nfe=24, metrics={"FID": 12.0}),
        adaptive(23.0, 40, metrics={"FID": 8.0}),
        adaptive(23.5, 44, first=1000, metrics={"FID": 9.0}),
        {**a_line("ode23", nfe=None, error="has not ended"), "nfe": None},
    ]
    sweep = sweep_of(*lines)
    (table,) = make_tables(sweep)
    row = next(row for row in table.rows if row.label.startswith("ode45"))
    assert (row.results[24].nfe, row.results[24].most) == (23.25, 44)
    assert table.text(row, 24) == "8.5 ± 0.5 (NFE 23.2)" and table.heading(24) == "NFE ≤ 24"
    assert len(table.rows) == 2 and sweep.failures[0].subject == "ode23, adaptive"
    assert not within(table, [23]).rows


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nfe": None}, "its sampler is adaptive, and its nfe is None"),
        ({"nfe": {"mean": 5, "most": 4}}, "its sampler is adaptive, and its nfe is"),
        ({"nfe": {"mean": "5", "most": 5}}, "its sampler is adaptive, and its nfe is"),
        ({"nfe": [5]}, "its nfe is [5]"),
        ({"guidance": ["cfg"]}, "its guidance has 'cfg'"),
        ({"guidance": [{"name": "cfg"}]}, "its guidance has"),
        ({"edits": 3}, "its edits is 3"),
    ],
)
def test_a_line_that_says_it_wrongly_is_passed_over(tmp_path, changes, said):
    line = adaptive(5.0, 5, metrics={"FID": 1.0})
    line |= {key: value for key, value in changes.items() if key == "nfe"}
    line["cell"] |= {key: value for key, value in changes.items() if key != "nfe"}
    good = a_line(metrics={"FID": 1.0})
    (tmp_path / "cells.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(good)}\n")
    told = []
    assert len(read_sweep(tmp_path, told.append).results) == 1
    assert len(told) == 1 and said in told[0]
