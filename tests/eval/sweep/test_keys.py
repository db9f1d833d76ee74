"""Keys of cells: they change with everything that determines the result, and with nothing else."""

import dataclasses
import hashlib

import pytest

import kdiff
from kdiff.eval import sweep
from kdiff.eval.features import feature_network
from kdiff.eval.sweep.cell import Judge, ModelSpec
from kdiff.models import sha256
from small_sweeps import TOY


@pytest.fixture(scope="module")
def cell(workplace):
    path = workplace / "tiny.safetensors"
    (only,) = sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["heun"],
        sizes=[{"steps": 4}],
        n=20,
        judges=[Judge(("fid", "rmse"), feature_network(TOY))],
    )
    return only


def test_a_key_is_the_same_in_every_process(cell):
    canonical = b'{"model": {"name": "m", "sha256": "0"}, "steps": 1}'
    other = dataclasses.replace(cell)
    other.__dict__["record"] = {"steps": 1, "model": {"sha256": "0", "name": "m"}}
    assert other.key == hashlib.sha256(canonical).hexdigest()[:16]
    assert cell.key == dataclasses.replace(cell).key


def test_a_key_changes_with_everything_that_determines_the_result(cell):
    def with_plan(**arguments):
        settings = {"steps": 4, **arguments}
        return dataclasses.replace(cell, plan=kdiff.plan(None, "heun", **settings))

    def with_model(**changes):
        return dataclasses.replace(cell, model=dataclasses.replace(cell.model, **changes))

    others = [
        with_model(sha256="0"),
        with_model(name="other"),
        with_plan(steps=5),
        with_plan(schedule="exponential"),
        with_plan(final="sigma_min"),
        with_plan(sigma_max=79.0),
        with_plan(rho=6.0),
        with_plan(options={"S_churn": 1}),
        dataclasses.replace(cell, plan=kdiff.plan(None, "dpm_2", steps=4)),
        dataclasses.replace(cell, seeds=range(1, 21)),
        dataclasses.replace(cell, seeds=range(21)),
        dataclasses.replace(cell, class_labels=None),
        dataclasses.replace(cell, dtype="bfloat16"),
        dataclasses.replace(cell, deterministic=True),
        dataclasses.replace(cell, metrics=("fid",)),
        dataclasses.replace(cell, network=dataclasses.replace(cell.network, weights="1")),
        dataclasses.replace(cell, network=dataclasses.replace(cell.network, resize="clean")),
    ]
    keys = [other.key for other in others]
    assert len({cell.key, *keys}) == 1 + len(others)
    assert cell.key == with_plan().key == with_plan(options={"S_churn": 0.0}).key


def test_one_cell_by_two_names_is_one_cell(workplace):
    path = workplace / "tiny.safetensors"
    cells = sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["heun", "HeunDiscreteScheduler", "DPM++ 2M", "DPM++ 2M Karras"],
        sizes=[{"nfe": 5}, {"nfe": 6}],  # Heun makes three steps of either
        n=2,
        judges=[Judge(())],
    )
    found = [(c.plan.sampler.name, c.plan.steps) for c in cells]
    assert found == [("heun", 3), ("dpmpp_2m", 5), ("dpmpp_2m", 6)]


def test_options_go_to_the_samplers_that_have_them(workplace):
    path = workplace / "tiny.safetensors"
    cells = sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["euler", "ddim", "euler_ancestral"],
        sizes=[{"steps": 2}],
        options={"ETA": ["0", "0.5"]},
        n=2,
        judges=[Judge(("rmse",))],
    )
    found = [(c.plan.sampler.name, c.plan.options.get("eta"), c.metrics) for c in cells]
    assert found == [
        ("euler", None, ("rmse",)),
        *(("ddim", 0.0, ("rmse",)), ("ddim", 0.5, ())),
        *(("euler_ancestral", 0.0, ("rmse",)), ("euler_ancestral", 0.5, ())),
    ]
