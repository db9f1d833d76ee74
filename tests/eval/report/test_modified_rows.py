"""Rows of runs with guidance or edits, and of adaptive samplers."""

import csv
import io
import json

import pytest

from kdiff.eval.report import make_tables, read_sweep, within
from small_reports import a_line, report


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
