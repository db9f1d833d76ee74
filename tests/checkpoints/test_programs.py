"""Programs (TorchScript, torch.export, ONNX) with their settings beside them."""

import json

import pytest
import torch
from torch import nn

import kdiff
from tiny_model import x


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


@pytest.mark.filterwarnings("ignore")  # warnings of the exporters
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
