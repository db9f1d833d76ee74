"""Tables by budget: each row's most evaluations within it."""

import pytest

from kdiff.eval.report import make_tables, within
from small_reports import a_line, report


def test_a_budget_has_of_each_row_the_most_evaluations_within_it(sweep_of, tmp_path):
    cells = [("euler", 4, 9.0), ("euler", 5, 8.0), ("euler", 10, 3.0), ("heun", 3, 7.0)]
    cells += [("heun", 9, 2.0), ("heun", 11, 1.0), ("ddim", 40, 0.5)]
    lines = [a_line(name, nfe=nfe, metrics={"FID": v}) for name, nfe, v in cells]
    table, other = make_tables(sweep_of(*lines, a_line("ddim", nfe=39, metrics={"KID": 0.1})))
    assert not within(other, [10, 5]).rows
    short = within(table, [10, 5])
    assert [[short.text(row, nfe) for nfe in short.columns] for row in short.rows] == [
        ["8.000", "3.000"],
        ["7.000 (NFE 3)", "2.000 (NFE 9)"],
    ]
    assert list(map(short.heading, short.columns)) == ["NFE ≤ 5", "NFE ≤ 10"]
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
    """It does not speak of the whole sweep: the row at NFE 10 has one repeat, not three."""
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
