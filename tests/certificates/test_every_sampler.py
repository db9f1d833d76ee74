"""The whole of `kdiff certify`, once, against what is committed; and the table of parity."""

import json
import os
import subprocess
import sys
from pathlib import Path

from kdiff.certificates.parity import table
from kdiff.samplers import REGISTRY

ROOT = Path(__file__).parents[2]
STORED = ROOT / "docs/certificates.json"


def test_every_sampler_passes_and_none_is_worse_than_it_was():
    command = [sys.executable, "-m", "kdiff", "certify", "--jobs", "2", "--against", STORED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stdout + found.stderr
    assert {line.split()[0] for line in found.stdout.splitlines()[1:]} == set(REGISTRY)


def test_the_committed_certificates_have_every_sampler():
    stored = json.loads(STORED.read_text())["certificates"]
    assert {one["sampler"] for one in stored} == set(REGISTRY)
    assert all(one["passes"] for one in stored)


def test_the_rows_of_parity_name_samplers_and_tests():
    assert set(table()) <= set(REGISTRY)
    for rows in table().values():
        for row in rows:
            assert row["with"] and (ROOT / row["test"]).is_file()
            assert row["difference"] < 1e-5 or row["note"]
