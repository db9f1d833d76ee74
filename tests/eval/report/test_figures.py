"""Figures of a table: the best of a column, and the digits that an error allows."""

import pytest

from kdiff.eval.report import Figure, make_tables
from kdiff.eval.report.digits import digits
from small_reports import a_line


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
