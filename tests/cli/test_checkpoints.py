"""kdiff inspect and kdiff convert."""

import gzip
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import kdiff
from kdiff.checkpoints import native
from kdiff.cli import main
from kdiff.model_check import health
from kdiff.networks import SongUNet
from places import GOLDEN

TINY = {"img_resolution": 8, "model_channels": 8, "num_blocks": 1, "channel_mult": [1, 2]}
MEAN, STD = 0.1, 0.3


def kdiff_cli(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def exact(prediction, seen_as, data_mean=MEAN):
    """The exact network of one kind for Gaussian images, read as another kind."""
    gaussian = kdiff.analytic.gaussian(torch.full((3, 8, 8), data_mean), STD)
    levels = kdiff.precond(prediction)

    def network(x, t):
        sigma = levels.sigmas[int(t[0])]
        c = levels(sigma)
        x = x / c.c_in
        return (gaussian(x, sigma) - c.c_skip * x) / c.c_out

    return kdiff.wrap(network, seen_as, shape=(3, 8, 8), round=True)


def images(n=8):
    generator = np.random.default_rng(0)
    x = generator.normal(MEAN, STD, (n, 8, 8, 3))
    return np.clip(np.round(x * 127.5 + 127.5), 0, 255).astype(np.uint8)


@pytest.fixture
def tiny(tmp_path):
    """A network of random numbers, as float32."""
    model = kdiff.Denoiser(
        SongUNet(**TINY, label_dim=2), "edm", shape=(3, 8, 8), classes=["a", "b"]
    )
    path = tmp_path / "tiny.safetensors"
    native.save(path, model.network.state_dict(), native.describe(model), torch.float32)
    return path


# --- the health check ---


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_network_that_is_read_rightly_denoises(prediction):
    model = exact(prediction, prediction)
    alone = health(model)
    assert alone.status == "unknown" and "nothing speaks against it" in alone.verdict
    found = health(model, images())
    # Of Gaussian data the exact denoiser is the guess, but for the pictures' clipping and the mean.
    for error, guess in zip(found.images.model, found.images.guess, strict=True):
        assert error == pytest.approx(guess, rel=0.1)


@pytest.mark.parametrize(
    "prediction, seen_as", [("v", "eps"), ("x0", "eps"), ("eps", "x0"), ("v", "x0"), ("eps", "v")]
)
@pytest.mark.parametrize("on_images", [False, True])
def test_a_network_that_is_read_wrongly_is_not_and_what_it_is_is_said(
    prediction, seen_as, on_images
):
    found = health(exact(prediction, seen_as), images() if on_images else None)
    assert found.status in (("bad", "doubtful") if on_images else ("bad",))
    if not on_images:  # on images the guess is as good as these networks
        assert f"load it with prediction={prediction!r}" in found.verdict


def test_a_network_that_is_not_finite_is_bad():
    model = kdiff.wrap(lambda x, t: x * float("nan"), "flow", shape=(3, 8, 8))
    assert health(model).status == "bad"


def test_images_of_another_size_are_refused():
    with pytest.raises(
        ValueError, match=r"the images are \[3, 8, 8\], the model's are \[3, 16, 16\]"
    ):
        health(kdiff.wrap(lambda x, t: x, shape=(3, 16, 16)), images())


def test_grey_models_see_the_mean_of_the_channels():
    model = kdiff.wrap(lambda x, t: 0 * x, "denoised", shape=(1, 8, 8))
    grey = images().mean(-1) / 127.5 - 1
    found = health(model, images())
    assert found.images.model[0] == pytest.approx(float(np.sqrt((grey**2).mean())), rel=1e-5)


def test_a_network_that_is_not_trained_yet():
    """EDM's preconditioner alone is as good as the guess."""
    torch.manual_seed(0)
    found = health(kdiff.Denoiser(SongUNet(**TINY), "edm", shape=(3, 8, 8)))
    assert found.status == "bad" and "before they are trained" in found.verdict


def test_images_of_one_colour():
    found = health(exact("eps", "eps"), np.zeros((4, 8, 8, 3), np.uint8))
    assert all(guess > 0 for guess in found.images.guess)


# --- kdiff inspect ---


def test_inspect_says_what_the_packaged_model_is():
    result = kdiff_cli("inspect", "cifar10", "--no-health")
    assert result.exit_code == 0, result.stderr
    for text in (
        "kdiff/1",
        "SongUNet, 4,103,171 parameters",
        "0.002 to 80",
        "3 x 32 x 32",
        "airplane",
    ):
        assert text in result.stdout


def test_the_packaged_model_is_healthy():
    found = json.loads(kdiff_cli("inspect", "cifar10", "--num", 2, "--json").stdout)
    assert "nothing speaks against it" in found["health"]["verdict"]
    assert found["health"]["sigmas"] == [0.05, 0.2, 1, 5, 20, 80]


def test_inspect_with_images(tiny, tmp_path):
    np.save(tmp_path / "images.npy", images())
    result = kdiff_cli("inspect", tiny, "--images", tmp_path / "images.npy", "--num", 4)
    assert result.exit_code == 0, result.stderr
    assert "on images" in result.stdout and "on noise" in result.stdout
    record = json.loads(
        kdiff_cli("inspect", tiny, "--images", tmp_path / "images.npy", "--json").stdout
    )
    assert record["format"] == "kdiff/1" and record["classes"] == ["a", "b"]
    assert record["parameters"] == sum(p.numel() for p in kdiff.load(tiny).network.parameters())
    assert record["health"]["images"]["guess"][0] == pytest.approx(0.05, rel=0.05)


def test_what_cannot_be_called_so_is_still_inspected(tiny, monkeypatch):
    def load(path, **overrides):
        return kdiff.wrap(lambda x, t, *, prompt: x, shape=(3, 8, 8))

    monkeypatch.setattr("kdiff.cli.choices.load", load)
    result = kdiff_cli("inspect", tiny)
    assert result.exit_code == 0
    assert "unknown: the network cannot be called so" in result.stdout and "prompt" in result.stdout


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["nothing"], "no model 'nothing'"),
        (["cifar10", "--images", "nowhere"], "no folder or file"),
        (["cifar10", "--num", 1], "at least 2"),
    ],
)
def test_inspect_refuses_in_one_line(arguments, text):
    result = kdiff_cli("inspect", *arguments)
    assert result.exit_code == 2 and text in result.stderr


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


@pytest.fixture
def no_size(tmp_path):
    """A file that does not say its image size: lucidrains', 3 channels, two levels."""
    path = tmp_path / "lucidrains.pt"
    golden = GOLDEN / "lucidrains.pt.gz"
    path.write_bytes(gzip.decompress(golden.read_bytes()))
    return path


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


def test_inspect_takes_the_same_settings(no_size):
    result = kdiff_cli("inspect", no_size, "--set", "shape=(3, 8, 12)", "--json", "--no-health")
    assert json.loads(result.stdout)["shape"] == [3, 8, 12]


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


# --- networks that do not do what a command needs ---


def test_what_is_not_finite_is_said_plainly(tiny, tmp_path):
    model = kdiff.load(tiny)
    model.network.map_layer0.bias.fill_(torch.nan)
    native.save(tiny, model.network.state_dict(), native.describe(model), torch.float32)
    result = kdiff_cli("sample", "--model", tiny, "--num", 1, "--steps", 2, "--out", tmp_path / "o")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the model's output is not finite in step 1 of 2")
    assert "KDIFF_TRACEBACK" not in result.stderr


def test_names_of_classes_may_have_capitals(tiny, tmp_path):
    target = tmp_path / "named.safetensors"
    assert kdiff_cli("convert", tiny, target, "--set", "classes=Cat,Dog").exit_code == 0
    arguments = ["--num", 1, "--steps", 2, "--out", tmp_path / "out"]
    result = kdiff_cli("sample", "--model", target, "--class-label", "Dog", *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "run.json").read_text())["class_labels"] == [1]


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, AssertionError])
def test_a_network_that_fails_is_one_line(tiny, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error("it needs\na prompt")

    monkeypatch.setattr("kdiff.cli.choices.load", lambda path: kdiff.wrap(fail, shape=(3, 8, 8)))
    np.savez(tmp_path / "toy.npz", mu=np.zeros(12), sigma=np.eye(12))
    judges = ["--features", "toy_network:features", "--ref", tmp_path / "toy.npz"]
    for command in (["sample", "--out", tmp_path / "out"], ["eval-fid", *judges]):
        result = kdiff_cli(*command, "--model", tiny)
        last = result.stderr.splitlines()[-1]
        assert result.exit_code == 1 and last == f"Error: {tiny}: it needs a prompt"


def test_latents_are_no_pictures(tmp_path):
    source = GOLDEN / "edm2_latents.pkl"
    for command in ("sample", "sweep"):
        result = kdiff_cli(command, "--model", source, "--out", tmp_path / "out")
        assert result.exit_code == 2 and "4 x 8 x 8 latents, not pictures" in result.stderr
        assert not (tmp_path / "out").exists()


def test_images_are_no_data_of_a_model_of_latents(tmp_path):
    np.save(tmp_path / "images.npy", images())
    result = kdiff_cli("inspect", GOLDEN / "edm2_latents.pkl", "--images", tmp_path / "images.npy")
    assert result.exit_code == 2 and "works on 4 x 8 x 8 latents, not on images" in result.stderr
