"""The command `kdiff report`: what it writes and prints, and what it refuses."""

from pathlib import Path

import pytest

from small_reports import a_full_sweep, a_line, report


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
