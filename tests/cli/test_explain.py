"""`kdiff explain` on samplers that are not like kdiff's own."""

import json

import pytest
from click.testing import CliRunner

from kdiff.cli import main
from kdiff.samplers import REGISTRY, sampler


def explain(*words):
    return CliRunner().invoke(main, ["explain", *words, "--steps", "1"])


@pytest.fixture
def odd_samplers():
    @sampler("squared", order=1, paper="none", linear=False)
    def squared(x, sigmas):
        return (yield x, sigmas[0]) ** 2

    @sampler("endless", order=1, paper="none", nfe=None, limit=10)
    def endless(x, sigmas):
        return (yield x, sigmas[0])

    @sampler("drawing", order=1, paper="none", noise="white", ode=None)
    def drawing(x, sigmas, *, noise):
        s, t = sigmas
        n = noise(s, t), noise(s, t, 2), noise(s, t, 1, stream="corrector")
        return (yield x, s) + n[0] + 2.0 * n[1] + 3.0 * n[2]

    yield
    for name in ("squared", "endless", "drawing"):
        del REGISTRY[name]


@pytest.mark.parametrize(
    ("name", "message"), [("squared", "is not linear"), ("endless", "is adaptive")]
)
def test_without_a_tableau_there_is_one_line(name, message, odd_samplers):
    result = explain(name)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"Error: {name} {message}")


def test_further_draws_and_streams_are_shown(odd_samplers):
    told = explain("drawing", "--sigma-max", "10").stdout.splitlines()
    assert told[-3:] == [
        "n1: from 10 to 0",
        "n2: from 10 to 0, draw 2",
        "n3: from 10 to 0, draw 1, stream corrector",
    ]
    noises = json.loads(explain("drawing", "--json").stdout)["noises"]
    assert [n.get("draw", 0) for n in noises] == [0, 2, 1]
    assert [n.get("stream", "") for n in noises] == ["", "", "corrector"]
