"""What every format goes through: recognition, overrides, settings, plug-ins, memory."""

import json
import math
import re
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import kdiff
from kdiff.checkpoints import find_format, formats, native, torch_zip
from kdiff.checkpoints.weights import load_weights
from kdiff.networks import NETWORKS, SongUNet, at_most
from kdiff.networks.song_unet import FourierEmbedding

TINY = {"img_resolution": 8, "model_channels": 8, "num_blocks": 1, "channel_mult": [1, 2]}


@pytest.fixture
def tiny(tmp_path):
    """A kdiff/1 file of a tiny network that predicts eps."""
    model = kdiff.Denoiser(SongUNet(**TINY, label_dim=1), "eps", shape=(3, 8, 8), classes=["0"])
    path = tmp_path / "tiny.safetensors"
    native.save(path, model.network.state_dict(), native.describe(model), torch.float32)
    return path


def x(n=2):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# --- recognition ---


def test_every_format_has_the_three_names():
    assert len(formats()) >= 12
    for name, module in formats().items():
        assert name == module.NAME and callable(module.detect) and callable(module.load)


def test_an_unknown_file_says_what_every_format_missed(tmp_path):
    path = tmp_path / "thing.bin"
    path.write_bytes(b"neither this nor that")
    with pytest.raises(ValueError, match="is of no format that kdiff reads") as caught:
        kdiff.load(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    for name in formats():
        assert name in message


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_weights_that_no_format_knows_are_for_wrap(name, tmp_path):
    tensors = {"layer.weight": torch.ones(2, 2)}
    (torch.save if name == "net.pt" else save_file)(tensors, tmp_path / name)
    with pytest.raises(ValueError, match=r"for a network of your own use kdiff\.wrap$"):
        kdiff.load(tmp_path / name)


@pytest.mark.parametrize(
    ("pipeline", "name", "folder"),
    [
        (True, "model_index.json", ""),
        (True, "unet/config.json", ""),
        (True, "unet/x.safetensors", ""),
        (False, "unet/config.json", "unet"),
        (False, "unet/x.safetensors", "unet"),
    ],
)
def test_of_a_part_of_a_diffusers_folder_the_folder_is_named(pipeline, name, folder, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    save_file({"layer.weight": torch.ones(2, 2)}, tmp_path / "unet" / "x.safetensors")
    if pipeline:
        (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match=f"give the folder {re.escape(str(tmp_path / folder))}$"):
        kdiff.load(tmp_path / name)


def test_each_format_refuses_the_empty_file_and_the_empty_folder(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for module in formats().values():
        for path in (tmp_path / "empty", tmp_path / "folder"):
            assert isinstance(module.detect(path), str), module.NAME


@pytest.mark.parametrize("path", ["/dev/zero", "nowhere.pt"])
def test_what_is_neither_file_nor_folder(path):
    with pytest.raises(ValueError, match="neither a file"):
        kdiff.load(path)
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        find_format(path)


# --- overrides ---


def test_overrides_correct_what_a_file_says(tiny):
    model = kdiff.load(tiny, name="mine", classes=["a"], sigma_max=10.0)
    assert (model.name, model.classes, model.sigma_max) == ("mine", ("a",), 10.0)
    assert kdiff.load(tiny).sigma_max > 100


def test_another_prediction_keeps_the_noise_levels(tiny):
    found = kdiff.load(tiny, prediction="v")
    assert found.precond.name == "v" and found.sigmas == kdiff.load(tiny).sigmas
    assert found.facts["parameterisation"] == "as told to kdiff.load"
    expected = kdiff.Denoiser(kdiff.load(tiny).network, "v", shape=(3, 8, 8))
    with torch.no_grad():
        assert torch.equal(found(x(), 1.0), expected(x(), 1.0))


def test_another_preconditioner_brings_its_range(tiny):
    model = kdiff.load(tiny, precond="edm")
    assert (model.sigma_min, model.sigma_max, model.sigmas) == (0.002, 80.0, None)


@pytest.mark.parametrize(
    "overrides, text",
    [
        ({"prediction": "edm"}, "cannot replace eps"),
        ({"colour": "red"}, "has no colour to replace"),
        ({"precond": "nothing"}, "unknown preconditioner"),
        ({"classes": ["a", "b"]}, "has 1 classes, not 2"),
        ({"dtype": "float16"}, "must be None or one such as torch.bfloat16"),
        ({"dtype": torch.int64}, "must be None or one such as torch.bfloat16"),
    ],
)
def test_overrides_that_make_no_sense(tiny, overrides, text):
    with pytest.raises(ValueError, match=text):
        kdiff.load(tiny, **overrides)


def test_facts_are_copied_not_shared(tiny):
    model = kdiff.load(tiny)
    assert model.facts == {"format": "kdiff/1", "parameterisation": "eps, from the file's metadata"}
    other = model.replace(name="other")
    other.facts["format"] = "changed"
    assert model.facts["format"] == "kdiff/1" and other.network is model.network
    with pytest.raises(TypeError, match="no network to replace"):
        model.replace(network=None)


# --- kdiff's own format ---


def test_a_network_remembers_what_made_it():
    network = SongUNet(8, 3, model_channels=8, num_blocks=1)
    assert network.config == {
        "name": "song_unet",
        "img_resolution": 8,
        "in_channels": 3,
        "model_channels": 8,
        "num_blocks": 1,
    }
    assert NETWORKS["song_unet"] is SongUNet

    class Other(SongUNet):
        def __init__(self):
            super().__init__(8, model_channels=8, num_blocks=1)

    assert not hasattr(Other(), "config")  # it could not be built again from it


def test_loading_keeps_the_dtype_only_if_asked_to(tmp_path, tiny):
    model = kdiff.load(tiny)
    half = tmp_path / "half.safetensors"
    native.save(half, model.network.state_dict(), native.describe(model), torch.float16)
    assert kdiff.load(half).dtype == torch.float32
    kept = kdiff.load(half, dtype=None)
    assert {p.dtype for p in kept.network.parameters()} == {torch.float16}
    torch.testing.assert_close(kept(x(), 1.0), model(x(), 1.0), rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frequencies_are_not_made_narrower(dtype, tmp_path):
    """A hundred turns, rounded to eight bits, are off by as much as half a turn."""
    embedding = FourierEmbedding(16, scale=100)
    angles = embedding(torch.tensor([1.0]))
    assert torch.equal(embedding.to(dtype)(torch.tensor([1.0])), angles)
    assert embedding.double().freqs.dtype == torch.float64
    wide = kdiff.Denoiser(SongUNet(**TINY, embedding_type="fourier"), "ve", shape=(3, 8, 8))
    path = tmp_path / "fourier.safetensors"
    native.save(path, wide.network.state_dict(), native.describe(wide), torch.float32)
    narrow = kdiff.load(path, dtype=dtype).network
    assert narrow.map_layer0.weight.dtype == dtype
    assert torch.equal(narrow.map_noise.freqs, wide.network.map_noise.freqs)


def test_complex_weights_are_refused():
    layer = nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match="weight has complex numbers"):
        load_weights(layer, [("weight", torch.zeros(2, 2, dtype=torch.complex64))], None)


def test_weights_of_two_types_become_the_wider_one():
    layer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tensors = {key: value.detach().half() for key, value in layer.state_dict().items()}
    tensors["1.weight"] = tensors["1.weight"].bfloat16()
    load_weights(layer, tensors.items(), None)
    assert {p.dtype for p in layer.parameters()} == {torch.float32}  # no value is rounded


def test_frequencies_are_not_rounded_to_half_precision(tmp_path):
    network = SongUNet(**TINY, embedding_type="fourier")
    model = kdiff.Denoiser(network, "ve", shape=(3, 8, 8))
    path = tmp_path / "m.safetensors"
    native.save(path, network.state_dict(), native.describe(model))
    assert torch.equal(kdiff.load(path).network.map_noise.freqs, network.map_noise.freqs)


def test_loading_touches_no_global_generator(tiny):
    before = torch.get_rng_state()
    kdiff.load(tiny)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_built_again_cannot_be_described():
    with pytest.raises(ValueError, match="its network, Linear, is not one"):
        native.describe(kdiff.Denoiser(nn.Linear(2, 2), "edm", shape=(2,)))
    own = kdiff.Precond("mine", lambda s: (0.0, 1.0, 1.0), lambda s: s, 0.1, 1.0)
    with pytest.raises(ValueError, match="preconditioner is not one"):
        native.describe(kdiff.Denoiser(SongUNet(**TINY), own, shape=(3, 8, 8)))


def test_a_network_may_not_have_more_tensors_than_its_file():
    with at_most(2):
        nn.Linear(2, 2)
    with pytest.raises(ValueError, match="more tensors than the file"), at_most(2):
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    nn.Linear(2, 2)


def test_a_torch_file_may_be_packed_again_but_has_one_directory(tmp_path):
    saved, packed = tmp_path / "saved.pt", tmp_path / "packed.pt"
    torch.save({"w": torch.arange(5.0)}, saved)
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(packed, "w") as again:
        for name in archive.namelist():
            again.writestr(name, archive.read(name))
    for path in (saved, packed):
        assert torch_zip.read(path)["w"].tolist() == [0, 1, 2, 3, 4]
        whole = path.read_bytes()
        for content in (whole + b"\0", whole[:-2] + b"\1\0x", whole[:4] + whole):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"before or behind it|File is not a zip file"):
                torch_zip.read(path)


# --- programs, with their settings beside them ---


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.label = nn.Embedding(4, 3)

    def forward(self, x, t, y):
        return self.conv(x + self.label(y)[:, :, None, None]) * t.cos()[:, None, None, None]


INPUTS = torch.zeros(2, 3, 8, 8), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
SETTINGS = {"prediction": "flow", "shape": [3, 8, 8], "classes": 4, "labels": "y"}


def dynamic():
    return ({0: torch.export.Dim("n", min=1, max=64)},) * 3


def scripted(network, path):
    torch.jit.script(network).save(path)


def traced(network, path):
    torch.jit.trace(network, INPUTS).save(path)


def exported(network, path):
    program = torch.export.export(network, INPUTS, dynamic_shapes=dynamic())
    torch.export.save(program, path)


def onnx(network, path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    names = {"input_names": ["x", "t", "y"]}
    torch.onnx.export(network, INPUTS, path, dynamic_shapes=dynamic(), verbose=False, **names)


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_model_of_whole_timesteps_gets_the_nearest(tmp_path):
    class Echo(nn.Module):
        def forward(self, x, t):
            return x * 0 + t[:, None, None, None]

    path = tmp_path / "o.onnx"
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(Echo(), (INPUTS[0], INPUTS[2]), path, verbose=False)
    path.with_name("o.onnx.json").write_text('{"prediction": "eps", "shape": [3, 8, 8]}')
    network = kdiff.load(path).network
    assert network(torch.zeros(2, 3, 8, 8), torch.tensor([6.8, 7.2])).unique().tolist() == [7]


PROGRAMS = {"s.pt": scripted, "t.pt": traced, "e.pt2": exported, "o.onnx": onnx}


@pytest.mark.filterwarnings("ignore")  # of the exporters
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_the_network_that_it_was_made_of(tmp_path, name):
    network, path = Net().eval(), tmp_path / name
    PROGRAMS[name](network, path)
    with pytest.raises(ValueError, match=r"write that to .*json beside it, .*\"prediction\""):
        kdiff.load(path)
    settings = {**SETTINGS, "labels": None} if name == "e.pt2" else SETTINGS
    path.with_name(f"{name}.json").write_text(json.dumps(settings))
    trust = None
    if name != "o.onnx":
        trust = True
        for refused in (None, False):
            with pytest.raises(ValueError, match="can do anything that you can; if you trust"):
                kdiff.load(path, trust=refused)
    found = kdiff.load(path, trust=trust)
    expected = kdiff.wrap(network, "flow", shape=(3, 8, 8), classes=4, labels="y")
    labels = torch.tensor([0, 3, 1])
    with torch.no_grad():
        for sigma in (0.1, 5.0):
            ours, theirs = (m(x(3), sigma, class_labels=labels) for m in (found, expected))
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        kdiff.sample(found, "heun", steps=2, class_labels=[1])
    assert found.facts["parameterisation"] == f"flow, from {name}.json"
    assert found.name == path.stem and found.classes == ("0", "1", "2", "3")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["s.pt", "e.pt2"])
def test_the_environment_may_trust_too(name, tmp_path, monkeypatch):
    path = tmp_path / name
    PROGRAMS[name](Net().eval(), path)
    path.with_name(f"{name}.json").write_text(json.dumps({**SETTINGS, "labels": None}))
    monkeypatch.setenv("KDIFF_TRUST", "1")
    assert kdiff.load(path).shape == (3, 8, 8)
    with pytest.raises(ValueError, match="if you trust"):
        kdiff.load(path, trust=False)
    for value in ("", "0", "yes"):
        monkeypatch.setenv("KDIFF_TRUST", value)
        with pytest.raises(ValueError, match="if you trust"):
            kdiff.load(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trust", ["no", "true", 1, []])
def test_trust_is_yes_or_no(trust, tmp_path):
    scripted(Net(), tmp_path / "s.pt")
    (tmp_path / "s.pt.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(ValueError, match="trust must be True or False"):
        kdiff.load(tmp_path / "s.pt", trust=trust)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "content, text",
    [
        ("[1, 2]", "must give at least prediction and shape"),
        ('{"prediction": "eps"}', "must give at least prediction and shape"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"prediction": "noise", "shape": [3, 8, 8]}', "unknown preconditioner 'noise'"),
        ('{"prediction": "eps", "shape": [3, 8, 8], "colour": 1}', "colour"),
        ('{"prediction": "eps", "shape": [3, 8, 8], "steps": 1e12}', "steps must be"),
    ],
)
def test_settings_that_are_wrong(tmp_path, content, text):
    scripted(Net(), tmp_path / "s.pt")
    (tmp_path / "s.pt.json").write_text(content)
    with pytest.raises(ValueError, match=text) as caught:
        kdiff.load(tmp_path / "s.pt", trust=True)
    assert "\n" not in str(caught.value)


# --- plug-ins ---

PLUGIN = """
    import numpy as np, torch
    from pathlib import Path
    from kdiff.samplers import sampler

    @sampler("half_euler", order=1, paper="none")
    def half_euler(x, sigmas):
        for s, t in zip(sigmas, sigmas[1:]):
            d = yield x, s
            x = (t / s) * x + (1 - t / s) * d
        return x

    def square(n, sigma_min, sigma_max, power=2.0):
        return np.linspace(sigma_max ** (1 / power), sigma_min ** (1 / power), n) ** power

    NAME = "toy"
    def detect(path):
        return None if Path(path).suffix == ".toy" else "no .toy"

    def load(path, scale=1.0):
        import kdiff
        return kdiff.wrap(lambda x, s: scale * x, "denoised", shape=(2,), name="toy")

    def doubled(factor=2.0):
        from kdiff.preconditioners import Precond
        return Precond("doubled", row, clock, 0.1, 10.0)

    def row(sigma):
        return 0.0, 1.0, 1.0

    def clock(sigma):
        return 2 * sigma

    class Plain(torch.nn.Module):
        def __init__(self, width=2):
            super().__init__()
            self.layer = torch.nn.Linear(2, width)

        def forward(self, x, t, class_labels=None):
            return self.layer(x)

    from kdiff.networks import network

    @network("decorated")
    class Decorated(Plain):
        pass

    from kdiff.eval.evaluation import Metric
    METRIC = Metric("TOY", "a toy", "rows", "", lambda kept, _: [(1.0, None)])
"""
POINTS = """
    [kdiff.samplers]
    toy = kdiff_toy
    [kdiff.schedules]
    square = kdiff_toy:square
    [kdiff.checkpoints]
    toy = kdiff_toy
    broken = kdiff_toy_that_is_not_there
    [kdiff.metrics]
    toy = kdiff_toy:METRIC
    [kdiff.preconditioners]
    doubled = kdiff_toy:doubled
    [kdiff.networks]
    plain_net = kdiff_toy:Plain
    toys = kdiff_toy
"""
USE = """
    import json, sys, warnings, kdiff
    from click.testing import CliRunner
    from kdiff.cli import main

    assert "kdiff_toy" not in sys.modules  # only when something asks for it
    names = {}
    warnings.simplefilter("error")
    try:
        kdiff.checkpoints.formats()
    except UserWarning as warning:
        assert "cannot load kdiff_toy_that_is_not_there of kdiff.checkpoints" in str(warning)
    warnings.simplefilter("ignore")
    for what in ("samplers", "schedules", "formats", "metrics"):
        result = CliRunner().invoke(main, ["list", what, "--json"])
        names[what] = [row["name"] for row in json.loads(result.stdout)]
    model = kdiff.load(sys.argv[1], scale=0.5)
    sample = kdiff.sample(model, "Half Euler", steps=3, schedule="square", power=3)
    kept = []
    for name in ("plain net", "decorated"):
        from kdiff.networks import NETWORKS
        from kdiff.checkpoints import native
        made = NETWORKS.find(name).thing(width=2)
        own = kdiff.Denoiser(made, kdiff.precond("doubled", factor=3), shape=(2,))
        native.save("toy.safetensors", made.state_dict(), native.describe(own))
        read = kdiff.load("toy.safetensors")
        kept.append([type(read.network).__name__, read.network.config, read.precond.config])
        kept[-1].append(read.precond(1.0).c_noise)
    print(json.dumps([names, model.facts["format"], list(sample.shape), kept]))
"""


def test_other_packages_add_samplers_schedules_formats_and_metrics(tmp_path):
    (tmp_path / "kdiff_toy.py").write_text(textwrap.dedent(PLUGIN))
    info = tmp_path / "kdiff_toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kdiff-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(POINTS))
    (tmp_path / "model.toy").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + textwrap.dedent(USE)
    command = [sys.executable, "-c", code, str(tmp_path / "model.toy")]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    names, format_, shape, kept = json.loads(found.stdout)
    assert "half_euler" in names["samplers"] and "square" in names["schedules"]
    assert "toy" in names["formats"] and "toy" in names["metrics"]
    assert (format_, shape) == ("toy", [1, 2])
    doubled = {"name": "doubled", "factor": 3.0}
    assert kept == [
        ["Plain", {"name": "plain_net", "width": 2}, doubled, 2.0],
        ["Decorated", {"name": "decorated", "width": 2}, doubled, 2.0],
    ]


def test_a_module_that_is_not_a_format_is_left_out(monkeypatch):
    monkeypatch.setattr("kdiff.names.plugins", lambda group: {"toy": math})
    with pytest.warns(UserWarning, match="toy of kdiff.checkpoints is left out: a format has NAME"):
        assert "toy" not in formats()


def test_a_file_with_an_unknown_network_suggests_the_nearest(tiny):
    config = {**native.describe(kdiff.load(tiny)), "network": {"name": "song_unt"}}
    native.save(tiny, kdiff.load(tiny).network.state_dict(), config)
    with pytest.raises(ValueError, match="unknown network 'song_unt'; did you mean song_unet"):
        kdiff.load(tiny)


@pytest.mark.parametrize(
    ("find", "nearest"),
    [
        (lambda: kdiff.precond("edmm"), "unknown preconditioner 'edmm'; did you mean edm"),
        (lambda: kdiff.schedule("karas", 5), "unknown schedule 'karas'; did you mean karras"),
        (lambda: NETWORKS.find("dhariwal"), "unknown network 'dhariwal'; did you mean dhariw"),
        (lambda: formats().find("lucid"), "unknown checkpoint format 'lucid'; did you mean lucidr"),
        (lambda: kdiff.alphas_cumprod("cosin"), "unknown beta schedule 'cosin'; did you mean cos"),
    ],
    ids=["preconditioner", "schedule", "network", "format", "betas"],
)
def test_unknown_names_are_told_alike(find, nearest):
    with pytest.raises(kdiff.UnknownName, match=nearest) as caught:
        find()
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)
