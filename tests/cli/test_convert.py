"""kdiff convert, and settings that a file lacks."""

import json

import pytest
import torch

import kdiff
from kdiff.checkpoints import native
from places import GOLDEN
from tiny_models import kdiff_cli

# --- kdiff convert ---


@pytest.mark.parametrize(
    "dtype, tolerance", [("float16", 1e-2), ("float32", 0), ("bfloat16", 1e-1)]
)
def test_a_converted_checkpoint_is_the_same_model(tiny, tmp_path, dtype, tolerance):
    target = tmp_path / "converted.safetensors"
    result = kdiff_cli("convert", tiny, target, "--dtype", dtype)
    assert result.exit_code == 0, result.stderr
    assert "song_unet" in result.stdout
    before, after = kdiff.load(tiny), kdiff.load(target)
    assert (before.shape, before.classes) == (after.shape, after.classes)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pair = [m(x, 0.7, class_labels=torch.tensor([1, 0])) for m in (before, after)]
    torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("source", sorted(p.name for p in GOLDEN.glob("edm*.pkl")))
def test_a_foreign_checkpoint_is_converted(source, tmp_path):
    target = tmp_path / "converted.safetensors"
    result = kdiff_cli("convert", GOLDEN / source, target, "--dtype", "float32")
    assert result.exit_code == 0, result.stderr
    before, after = kdiff.load(GOLDEN / source), kdiff.load(target)
    assert (before.sigma_min, before.sigma_max) == (after.sigma_min, after.sigma_max)
    x = torch.randn(2, *before.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(before(x, 0.7), after(x, 0.7), rtol=0, atol=0)


def test_a_target_that_is_there_is_kept(tiny, tmp_path):
    before = tiny.read_bytes()
    result = kdiff_cli("convert", tiny, tiny)
    assert result.exit_code == 2 and "add --overwrite" in result.stderr
    assert tiny.read_bytes() == before
    assert kdiff_cli("convert", tiny, tiny, "--overwrite").exit_code == 0
    assert len(tiny.read_bytes()) < len(before)


def test_values_beyond_float16_are_not_made_infinite(tiny, tmp_path):
    model, target = kdiff.load(tiny), tmp_path / "o.safetensors"
    model.network.map_layer0.weight[0, 0] = 1e5
    native.save(tiny, model.network.state_dict(), native.describe(model), torch.float32)
    result = kdiff_cli("convert", tiny, target)
    assert result.exit_code == 2 and "choose float32" in result.stderr and not target.exists()
    assert kdiff_cli("convert", tiny, target, "--dtype", "bfloat16").exit_code == 0


def test_overridden_ranges_survive(tiny, tmp_path):
    model = kdiff.load(tiny, sigma_max=7.0)
    native.save(tmp_path / "m.safetensors", model.network.state_dict(), native.describe(model))
    assert kdiff.load(tmp_path / "m.safetensors").sigma_max == 7.0


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_a_program_is_refused_until_it_is_trusted_and_never_converted(tmp_path, monkeypatch):
    class Two(torch.nn.Module):
        def forward(self, x, t):
            return x * t

    program = torch.jit.script(Two())
    program.save(tmp_path / "p.pt")
    (tmp_path / "p.pt.json").write_text('{"prediction": "flow", "shape": [3, 8, 8]}')
    for command in (["inspect"], ["convert", tmp_path / "o.safetensors"]):
        result = kdiff_cli(command[0], tmp_path / "p.pt", *command[1:])
        assert result.exit_code == 2 and "set KDIFF_TRUST=1" in result.stderr
    monkeypatch.setenv("KDIFF_TRUST", "1")
    assert kdiff_cli("inspect", tmp_path / "p.pt", "--no-health").exit_code == 0
    result = kdiff_cli("convert", tmp_path / "p.pt", tmp_path / "o.safetensors")
    assert result.exit_code == 2 and "is not one that kdiff can build" in result.stderr
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize(
    "target, text", [("o.pt", "must be a .safetensors"), ("no/o.safetensors", "cannot write")]
)
def test_targets_that_cannot_be(tiny, tmp_path, target, text):
    result = kdiff_cli("convert", tiny, tmp_path / target)
    assert result.exit_code == 2 and text in result.stderr


# --- settings that a file lacks ---


def test_what_a_file_lacks_is_set_and_stays_in_what_is_converted(no_size, tmp_path):
    target = tmp_path / "faces.safetensors"
    setting = ["--set", "shape=3,8,12", "--set", "sigma_max=80", "--set", "name=faces"]
    result = kdiff_cli("convert", no_size, target, "--dtype", "float32", *setting)
    assert result.exit_code == 0, result.output
    told = kdiff.load(no_size, shape=(3, 8, 12), sigma_max=80)
    converted = kdiff.load(target)
    assert (converted.shape, converted.sigma_max) == ((3, 8, 12), 80)
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(converted(x, 2.0), told(x, 2.0))


@pytest.mark.parametrize("command", [["inspect"], ["sample", "--model"], ["eval-fid", "--model"]])
def test_a_setting_that_is_missing_is_named_with_the_way_to_give_it(no_size, command):
    result = kdiff_cli(*command, no_size)
    assert result.exit_code == 2
    assert "give shape=(3, height, width)" in result.output.replace("\n", " ")
    assert "`kdiff convert --set" in result.output


@pytest.mark.parametrize(
    "setting, message",
    [
        ("shape", "KEY=VALUE"),
        ("shape=3", "shape must be whole numbers"),
        ("shape=3,a,b", "shape must be whole numbers"),
        ("shape=0,8,8", "shape must be whole numbers"),
        ("classes=cat", "classes must be a list of names"),
        ("shape=1,8,8", "shape must be (3, height, width), not (1, 8, 8)"),
        ("shape=3,8", "shape must be (3, height, width), not (3, 8)"),
        ("sigma_max=lots", "sigma_max must be a number"),
        ("sigma_min=0", "above 0 and below sigma_max, which are 0 and 80"),
        ("sigma_max=0.001", "above 0 and below sigma_max, which are 0.002 and 0.001"),
        ("sigma_max=.inf", "above 0 and below sigma_max, which are 0.002 and inf"),
        ("colour=blue", "has no colour to replace"),
        ("prediction=w", "prediction='w' cannot replace"),
        ("precond=w", "w"),
        ("precond={name: iddpm, c1: 0, c2: -1}", "there is no iddpm with"),
        ("precond={name: edm, sigma_min: x}", "sigma_min must be a number, not 'x'"),
        ("facts=x", "facts are what a file says"),
        ("name=3", "name must be a name"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(tiny, setting, message):
    result = kdiff_cli("inspect", tiny, "--set", setting)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("text, value", [("2e-3", 0.002), ("1e-4", 1e-4), ("3.E-03", 0.003)])
def test_numbers_are_written_as_people_do(tiny, text, value):
    result = kdiff_cli("inspect", tiny, "--no-health", "--json", "--set", f"sigma_min={text}")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["sigma_min"] == value


def test_null_tells_nothing(tiny):
    plain = kdiff_cli("inspect", tiny, "--no-health", "--json").stdout
    told = ["precond=null", "prediction=null", "name=null", "sigma_max=null", "weights=null"]
    options = [part for setting in told for part in ("--set", setting)]
    assert kdiff_cli("inspect", tiny, "--no-health", "--json", *options).stdout == plain
