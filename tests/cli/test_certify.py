"""`kdiff certify`: what it prints, writes and refuses."""

import json
import os
import re
import textwrap

import pytest
from click.testing import CliRunner

from fake_packages import packages  # noqa: F401
from kdiff.cli import main
from kdiff.samplers import REGISTRY

PLUG_IN = """
    from itertools import pairwise
    from kdiff.samplers import sampler

    @sampler("late_euler", order=1, paper="ours <script>alert(1)</script>")
    def late_euler(x, sigmas):
        for s, t in pairwise(sigmas):
            d = yield x, s
            x = (t / s) * x + (1 - t / s) * d
        return x

    @sampler("proud_euler", order=3, paper="ours")
    def proud_euler(x, sigmas):
        return late_euler(x, sigmas)
"""


def certify(*words):
    wide = {"COLUMNS": "250"}
    return CliRunner().invoke(main, ["certify", "--jobs", "1", *map(str, words)], env=wide)


@pytest.fixture
def plug_in(packages):  # noqa: F811
    packages.install(
        "kdiff.samplers", {"theirs": "their_samplers"}, their_samplers=textwrap.dedent(PLUG_IN)
    )
    yield
    for name in ("late_euler", "proud_euler"):
        if name in REGISTRY:
            del REGISTRY[name]


def test_a_plug_in_is_certified_and_told_what_is_wrong(plug_in, tmp_path):
    good, stored, page = "Late Euler", tmp_path / "found.json", tmp_path / "found.html"
    passed = certify(good, "--json", stored, "--html", page)
    assert passed.exit_code == 0, passed.output
    assert re.search(r"^late_euler +0.99 \(1\) .* 1 pass$", passed.stdout, re.M)
    (one,) = json.loads(stored.read_text())["certificates"]
    assert one["sampler"] == "late_euler" and one["passes"] and one["parity"] == []
    text = page.read_text()
    assert "default-src 'none'" in text and "<polyline" in text and "&lt;script&gt;" in text
    assert "<script" not in text and not re.search(r'(src|href)="(?!#|data:)', text)

    again = certify(good, "--against", stored)
    assert again.exit_code == 0, again.output
    one["settings"][0]["findings"]["nfe"]["zero"] = [1, 2, 3, 4]
    stored.write_text(json.dumps({"certificates": [one]}))
    worse = certify(good, "--against", stored)
    assert worse.exit_code == 1
    assert "worse: late_euler, default: evaluations to zero were [1, 2, 3, 4]" in worse.stdout

    failed = certify("proud_euler")
    assert failed.exit_code == 1
    assert "fails: proud_euler, default: its order is 0.99 ± 0.00, not 3" in failed.stdout
    assert "1 FAIL" in failed.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eulr"], "did you mean euler"),
        (["euler", "--against", "none.json"], "none.json"),
        (["euler", "--against", "other.json"], "write it with kdiff certify --json FILE"),
        (["euler", "--html", "other.json"], "other.json exists"),
        (["euler", "--jobs", "0"], "--jobs"),
        (["euler", "--html", "new.json"], "give them two names"),
        (["euler", "--html", "pipe", "--overwrite"], "pipe is not a file that can be replaced"),
    ],
)
def test_bad_words_are_one_line(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    refused = certify(*words, "--json", "new.json")
    assert refused.exit_code == 2
    assert told in refused.stderr and "Traceback" not in refused.output
    assert not (tmp_path / "new.json").exists()
