"""A sweep's folder to report on."""

import json

import pytest

from kdiff.eval.report import read_sweep


@pytest.fixture
def sweep_of(tmp_path):
    """sweep_of(*lines, tail=""): the folder with these cells, and what it reads as."""

    def write(*lines, tail=""):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "cells.jsonl").write_text(text + tail)
        (tmp_path / "sweep.json").write_text(json.dumps({"command": "kdiff sweep --nfe 10"}))
        return read_sweep(tmp_path)

    return write
