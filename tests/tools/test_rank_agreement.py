"""tools/rank_agreement.py: how alike two metrics order the cells of a sweep."""

import json
from pathlib import Path

from click.testing import CliRunner

import rank_agreement


def sweep_of(folder, metric, values):
    """Cells of one model and sampler at as many numbers of steps as there are values."""
    cell = dict.fromkeys(rank_agreement.SAME)
    cell |= {"model": {"sha256": "a"}, "sampler": "euler", "seeds": {"first": 0, "n": 9}}
    folder.mkdir()
    lines = [
        {
            "key": f"{metric}{steps}",
            "cell": {**cell, "sigmas": [steps], "nfe": steps},
            "status": "ok",
            "metrics": {metric: {"value": value, "n": 9}, "seconds": {"value": 1.0, "n": 9}},
        }
        for steps, value in enumerate(values, 1)
    ]
    (folder / "cells.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_rank_agreement_is_one_for_the_same_order_whichever_way_it_counts(tmp_path):
    fid = sweep_of(tmp_path / "a", "FID", [30, 20, 10, 5])
    same = sweep_of(tmp_path / "b", "IS (cifar10-classifier)", [5, 6, 8, 9])
    other = sweep_of(tmp_path / "c", "FD (cifar10-classifier)", [1, 2, 3, 4])
    for second, correlation in [(same, "1.000"), (other, "-1.000")]:
        result = CliRunner().invoke(rank_agreement.main, [fid, second])
        assert result.exit_code == 0 and f"{correlation}  (4 sets of images)" in result.output


def test_rank_agreement_within_a_budget_is_not_that_of_all_budgets(tmp_path):
    fid = sweep_of(tmp_path / "a", "FID", [33, 32, 31, 10, 5])
    second = sweep_of(tmp_path / "b", "FD (cifar10-classifier)", [61, 62, 63, 40, 20])
    result = CliRunner().invoke(rank_agreement.main, [fid, second, "--budget", "3,5"])
    assert [line.split() for line in result.output.splitlines()] == [
        ["FD", "(cifar10-classifier)", "FID", "0.600", "(5", "sets", "of", "images)"],
        ["NFE", "1", "to", "3", "-1.000", "(3", "sets", "of", "images)"],
        ["NFE", "4", "to", "5", "-", "(2)"],
    ]


def test_rank_agreement_of_some_samplers(tmp_path):
    """The first three cells do not agree; the fourth, of another sampler, does."""
    fid = sweep_of(tmp_path / "a", "FID", [33, 32, 31, 10])
    second = sweep_of(tmp_path / "b", "FD (cifar10-classifier)", [61, 62, 63, 40])
    for folder in (fid, second):
        file = Path(folder) / "cells.jsonl"
        *three, fourth = file.read_text().replace('"euler"', '"unipc"').splitlines()
        file.write_text("\n".join([*three, fourth.replace('"unipc"', '"euler"')]) + "\n")
    result = CliRunner().invoke(rank_agreement.main, [fid, second, "--sampler", "unipc"])
    assert "-1.000  (3 sets of images)" in result.output
    result = CliRunner().invoke(rank_agreement.main, [fid, second, "--sampler", "unipc,heun"])
    assert result.exit_code == 2 and "no cell is of 'heun'" in result.output


def test_rank_agreement_takes_no_figures_of_two_references_for_one(tmp_path):
    fid = sweep_of(tmp_path / "a", "FID", [30, 20, 10, 5])
    other = sweep_of(tmp_path / "b", "FID", [31, 21, 11, 6])
    file = tmp_path / "b" / "cells.jsonl"
    file.write_text(file.read_text().replace('"nfe"', '"reference": {"name": "test"}, "nfe"'))
    result = CliRunner().invoke(rank_agreement.main, [fid, other])
    assert result.exit_code == 2 and "FID is of more than one network or refer" in result.output


def test_rank_agreement_is_of_one_model_and_one_number_of_images(tmp_path):
    fid = sweep_of(tmp_path / "a", "FID", [30, 20, 10, 5])
    file = tmp_path / "a" / "cells.jsonl"
    more = file.read_text().splitlines()[0].replace('"n": 9', '"n": 10')
    file.write_text(file.read_text() + more.replace("FID1", "another") + "\n")
    result = CliRunner().invoke(rank_agreement.main, [fid])
    assert result.exit_code == 2 and "more than one model or N" in result.output


def test_rank_agreement_of_too_few_cells_is_one_line(tmp_path):
    result = CliRunner().invoke(rank_agreement.main, [str(tmp_path), str(tmp_path)])
    assert result.exit_code == 2 and "three sets of images" in result.output
