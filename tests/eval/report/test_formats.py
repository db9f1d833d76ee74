"""Formats of a report, read back from the files that a person gets."""

import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from kdiff.eval.report import curves, formats, make_tables, page, plots
from small_reports import HOSTILE, a_full_sweep, a_line


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
    picture = curves.draw(plots.curves(table), suffix)
    assert picture == curves.draw(plots.curves(table), suffix)
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
    found = {table.metric: plots.curves(table).y for table in tables}
    assert {metric: axis.log for metric, axis in found.items()} == {
        **{"FID": True, "KID": False, "recall": False}
    }
    for metric, axis in found.items():
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
    assert text.count("</script>") == 2  # one ends the data, one the program
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
