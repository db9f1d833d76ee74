"""What counts as worse than a stored certificate."""

import copy

import pytest

from kdiff.certificates import certificate
from kdiff.certificates.regressions import read, regressions, to_text
from kdiff.samplers import REGISTRY


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    file = tmp_path_factory.mktemp("stored") / "certificates.json"
    file.write_text(to_text([certificate(REGISTRY["euler_ancestral"])]))
    return read(file)


@pytest.fixture
def found(stored):
    return copy.deepcopy(stored)


def findings(certificates):
    return certificates[0]["settings"][0]["findings"]


def test_nothing_is_worse_than_itself(stored, found):
    assert regressions(stored, found) == []
    assert regressions([], found) == []  # a new sampler


def test_a_sampler_or_a_setting_is_gone(stored, found):
    assert regressions(stored, []) == ["euler_ancestral is gone"]
    del found[0]["settings"][1]
    assert regressions(stored, found) == ["euler_ancestral: the setting eta=0 is gone"]


def test_an_order_fell(stored, found):
    findings(found)["order"]["measured"] -= 0.2
    (line,) = regressions(stored, found)
    assert line.startswith("euler_ancestral, default: the order fell from 0.988 to 0.788")


def test_evaluations_are_others(stored, found):
    findings(found)["nfe"]["zero"] = [1, 2, 3, 9]
    (line,) = regressions(stored, found)
    assert "evaluations to zero were [1, 2, 3, 8], and are [1, 2, 3, 9]" in line


@pytest.mark.parametrize(("factor", "worse"), [(1.05, 0), (1.2, 1), (0.5, 0)])
def test_an_error_grew_by_more_than_a_tenth(stored, found, factor, worse):
    findings(found)["errors"]["wide"][2][1] *= factor
    assert len(regressions(stored, found)) == worse


def test_a_measure_fails_or_is_gone(stored, found):
    findings(found)["moments"]["failure"] = "its mean is 9.0 standard errors off"
    del findings(found)["split"]
    assert regressions(stored, found) == [
        "euler_ancestral, default: its mean is 9.0 standard errors off",
        "euler_ancestral, default: split is not measured any more",
    ]


def test_a_file_without_certificates_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="kdiff certify --json FILE"):
        read(tmp_path / "other.json")
