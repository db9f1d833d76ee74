"""One metric against another, along the values of an option; and the axes of such plots."""

from dataclasses import replace

import pytest

from kdiff.eval.report import across, curves, make_tables, plots
from small_reports import a_line, a_scale_sweep, guided


def drawn(sweep, name="scale"):
    return plots.plots(make_tables(sweep, (), across.named(sweep, name)))


def scales(*values, metrics, **cell):
    return [a_line(metrics=metrics(w), **guided(("cfg", {"scale": w}), **cell)) for w in values]


def points(line):
    return [(point.mark, point.x, point.y) for point in line.points]


def test_fid_stands_against_is_with_the_scale_beside_each_point(sweep_of):
    *_, plot = drawn(a_scale_sweep(sweep_of))
    assert plot.title == "FID against IS by cfg:scale, cifar10, N = 1,000"
    assert (plot.x.name, plot.y.name) == ("IS, higher is better", "FID, lower is better")
    assert {line.label: points(line) for line in plot.lines} == {
        "euler (cfg)": [("1", 6.0, 30.0), ("2", 7.0, 20.0), ("3", 8.0, 25.0)],
        "heun (cfg)": [("1", 6.0, 29.0), ("2", 7.0, 22.0), ("3", 8.0, 21.0)],
    }
    assert plot.lines[0].points[1].text == "FID 20.0 ± 0.5, IS 7.000"
    picture = curves.draw(plot, "svg")
    assert picture == curves.draw(plot, "svg")
    unmarked = [
        replace(line, points=[replace(point, mark="") for point in line.points])
        for line in plot.lines
    ]
    bare = curves.draw(replace(plot, lines=unmarked), "svg")
    assert picture.count(b'<g id="text_') == bare.count(b'<g id="text_') + 6


def test_pairs_are_of_one_network_and_precision_stands_against_recall(sweep_of):
    small = {"name": "small", "resize": None, "weights": "f" * 64}
    own = scales(1.0, 2.0, metrics=lambda w: {"FID": w, "precision": w, "recall": 1 / w})
    other = scales(
        *(1.0, 2.0),
        metrics=lambda w: {"FD (small)": w, "IS (small)": w, "density (small)": w},
        features=small,
    )
    titles = [plot.title.split(" by ")[0] for plot in drawn(sweep_of(*own, *other))]
    assert titles[-2:] == ["FD (small) against IS (small)", "precision against recall"]
    assert sum("against" in title for title in titles) == 2


def test_a_single_scale_and_tables_by_nfe_have_no_trade_off(sweep_of):
    sweep = sweep_of(*scales(1.5, metrics=lambda w: {"FID": w, "IS": w}))
    assert [plot.title.split(" by ")[0] for plot in drawn(sweep)] == ["FID", "IS"]
    (by_nfe, _) = plots.plots(make_tables(sweep))
    assert by_nfe.x.name == "NFE"


@pytest.mark.parametrize(
    ("values", "log"),
    [((1.0, 1.5, 2.0), False), ((1.0, 2.0, 5.0, 10.0), True), ((0.0, 1.0, 12.0), False)],
)
def test_the_axis_of_an_option_is_logarithmic_where_values_span_a_factor_of_ten(
    sweep_of, values, log
):
    (plot,) = drawn(sweep_of(*scales(*values, metrics=lambda w: {"FID": 5 + w})))
    assert plot.x.log is log and list(plot.x.ticks) == list(values)
    assert plot.x.low < min(values) and max(values) < plot.x.high


def test_a_curve_has_error_bars_and_a_larger_mark_at_its_best(sweep_of):
    """A best point is drawn twice: as all are, and larger."""
    plot, *_ = drawn(a_scale_sweep(sweep_of))
    line = plot.lines[0]
    assert [(point.error, point.best) for point in line.points] == [
        *((0.5, False), (0.5, True), (0.5, False))
    ]
    bare = replace(line, points=[replace(point, best=False) for point in line.points])
    marks = [curves.draw(replace(plot, lines=[one]), "svg").count(b"<use ") for one in (line, bare)]
    assert marks[0] == marks[1] + 1


def test_a_noise_floor_far_below_does_not_flatten_curves_by_an_option(sweep_of):
    lines = scales(1.0, 2.0, metrics=lambda w: {"FID": 30 + w})
    near, far = ([{**line, "noise_floor": {"FID": f}} for line in lines] for f in (31.5, 5.0))
    (plot,) = drawn(sweep_of(*near))
    assert plot.noise_floor == 31.5
    sweep = sweep_of(*far)
    (plot,) = drawn(sweep)
    assert plot.noise_floor is None and plot.y.low > 30 and "Noise floor: about 5," in plot.caption
    assert plots.plots(make_tables(sweep))[0].noise_floor == 5.0
