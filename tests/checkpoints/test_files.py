"""A format reads exactly the files that it says, and the hash in results covers them."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import kdiff
import nvidia_pickles
from kdiff.checkpoints import files, find_format, formats
from kdiff.cli import main
from kdiff.models import packaged_models, sha256
from kdiff.networks import SongUNet
from opened_files import opened_files
from small_checkpoints import KINDS

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
}
SETTINGS = {"prediction": "eps", "shape": [3, 8, 8]}
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks inotify")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters


def unet(seed=0):
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return diffusers.UNet2DModel(**UNET)


def pipeline(folder, seed=0):
    import diffusers

    diffusers.DDPMPipeline(unet(seed), diffusers.DDPMScheduler()).save_pretrained(folder)
    return folder


# --- what is loaded: each writes it to a folder, and returns its path and what `load` needs ---


def of(kind):
    def write(folder):
        writer, _, options = KINDS[kind]
        return writer(folder / "model.pt", 32), options

    return write


def a_pipeline(folder):
    return pipeline(folder / "pipeline"), {}


def a_latent_pipeline(folder):
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=2, latent_channels=4, **blocks
    )
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        sample_size=8,
        num_embeds_ada_norm=3,
        out_channels=8,
    )
    made = diffusers.DiTPipeline(network, vae, diffusers.DDIMScheduler())
    made.save_pretrained(folder / "dit")
    return folder / "dit", {}


def a_pipeline_of_links(folder):
    pipeline(folder / "elsewhere")
    shutil.copytree(folder / "elsewhere", folder / "pipeline")
    shutil.rmtree(folder / "pipeline" / "unet")
    (folder / "pipeline" / "unet").symlink_to(folder / "elsewhere" / "unet")
    return folder / "pipeline", {}


def the_unet_of_a_pipeline(folder):
    return pipeline(folder / "pipeline") / "unet", {}


def a_linked_unet(folder):
    pipeline(folder / "pipeline")
    (folder / "link").symlink_to(folder / "pipeline" / "unet")
    return folder / "link", {}


def a_network_alone(folder):
    unet().save_pretrained(folder / "net")
    return folder / "net", {}


def a_flat_folder(folder):
    import diffusers

    unet().save_pretrained(folder / "flat")
    diffusers.DDPMScheduler().save_pretrained(folder / "flat")
    parts = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    (folder / "flat" / "model_index.json").write_text(json.dumps(parts))
    return folder / "flat", {}


def pickled_weights(folder):
    unet().save_pretrained(folder / "bin", safe_serialization=False)
    return folder / "bin", {}


def shards(folder):
    unet().save_pretrained(folder / "shards", max_shard_size="20KB")
    return folder / "shards", {}


def shards_beside_the_whole(folder):
    unet(1).save_pretrained(folder / "both")
    unet().save_pretrained(folder / "shards", max_shard_size="20KB")
    shutil.copytree(folder / "shards", folder / "both", dirs_exist_ok=True)
    return folder / "both", {}


def pickled_shards(folder):
    unet().save_pretrained(folder / "net", max_shard_size="20KB", safe_serialization=False)
    return folder / "net", {}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.second = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, t):
        return self.second(self.first(x)) * t.cos()[:, None, None, None]


INPUTS = torch.zeros(2, 3, 8, 8), torch.zeros(2)


def program(path):
    path.with_name(path.name + ".json").write_text(json.dumps(SETTINGS))
    return path, {"trust": True}


def torchscript(folder):
    torch.jit.script(Net()).save(folder / "net.pt")
    return program(folder / "net.pt")


def exported(folder):
    torch.export.save(torch.export.export(Net(), INPUTS), folder / "net.pt2")
    return program(folder / "net.pt2")


def onnx(folder, external=True):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = folder / "net.onnx"
    torch.onnx.export(Net(), INPUTS, path, external_data=external, verbose=False)
    path, _ = program(path)
    return path, {}


def onnx_whole(folder):
    path, _ = onnx(folder, external=False)
    path.with_name("net.onnx.data").write_bytes(b"what no tensor is in")
    return path, {}


def onnx_elsewhere(folder):
    """A file for each tensor, by another name, one of them in a folder and one behind a link."""
    library = pytest.importorskip("onnx")
    path, _ = onnx(folder)
    model = library.load(path)
    each = {"save_as_external_data": True, "all_tensors_to_one_file": False, "size_threshold": 300}
    library.save(model, path, **each)
    (folder / "net.onnx.data").unlink()
    model = library.load(path, load_external_data=False)
    first, second = (t for t in model.graph.initializer if t.external_data)
    names = {first.name: "weights/first.bin", second.name: "second.bin"}
    (folder / "weights").mkdir()
    for tensor in (first, second):
        place = next(e for e in tensor.external_data if e.key == "location")
        (folder / place.value).rename(folder / names[tensor.name])
        place.value = names[tensor.name]
    (folder / "second.bin").rename(folder / "weights" / "second")
    (folder / "second.bin").symlink_to("weights/second")
    path.write_bytes(model.SerializeToString())
    return path, {}


def a_config_beside_it(folder):
    writer, _, _ = KINDS["k-diffusion, .pth"]
    path = writer(folder / "model.pth", 32)
    saved = torch.load(path)
    (folder / "model.json").write_text(json.dumps(saved.pop("config")))
    torch.save(saved, path)
    return path, {}


def plain_weights(folder):
    network = SongUNet(8, model_channels=32, num_blocks=1)
    save_file(network.state_dict(), folder / "net.safetensors")
    return folder / "net.safetensors", {"shape": (3, 8, 8), "precond": "edm"}


PIPELINES = [a_pipeline, a_latent_pipeline, a_network_alone, a_flat_folder, pickled_weights, shards]
FOLDERS = [
    *PIPELINES,
    a_pipeline_of_links,
    the_unet_of_a_pipeline,
    a_linked_unet,
    shards_beside_the_whole,
    pickled_shards,
]
SINGLE = {  # kind -> format
    "kdiff": "kdiff",
    "EDM": "edm",
    "EDM2": "edm2",
    "openai": "openai",
    "lucidrains": "lucidrains",
    "score_sde": "score_sde",
    "k-diffusion, .pth": "k-diffusion",
    "k-diffusion, .safetensors": "k-diffusion",
}
CASES = {
    **{kind: (name, of(kind)) for kind, name in SINGLE.items()},
    **{write.__name__: ("diffusers", write) for write in FOLDERS},
    "plain weights": ("edm-weights", plain_weights),
    "a config beside it": ("k-diffusion", a_config_beside_it),
    "torchscript": ("torchscript", torchscript),
    "exported": ("exported", exported),
    **{write.__name__: ("onnx", write) for write in (onnx, onnx_whole, onnx_elsewhere)},
}


def add_others(path):
    """Files that look as if they belonged to the model at `path`, and are not read."""
    folder = path if path.is_dir() else path.parent
    for name in ("README.md", "model.json.bak", "tokenizer/vocab.json", "checker/model.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    for config in list(folder.rglob("config.json")):
        weights = "diffusion_pytorch_model"
        save_file({"w": torch.zeros(1)}, config.parent / f"{weights}.fp16.safetensors")
        if (
            list(config.parent.glob(f"{weights}*.safetensors.index.json"))
            or (config.parent / f"{weights}.safetensors").exists()
        ):
            torch.save({"w": torch.zeros(1)}, config.parent / f"{weights}.bin")


def by_hand(paths, folder):
    """The hash of several files, as docs/checkpoints.md has it."""
    lines = ""
    for path in sorted(paths):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines += f"{digest}  {path.relative_to(folder).as_posix()}\n"
    return hashlib.sha256(lines.encode()).hexdigest()


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A folder, a model in it, its format, what `load` needs, its hash before `add_others`."""
    format_, write = CASES[request.param]
    folder = tmp_path_factory.mktemp("case")
    with pytest.MonkeyPatch.context() as monkeypatch:
        nvidia_pickles.nvidia_names(monkeypatch)
        path, options = write(folder)
    before = sha256(path)
    add_others(path)
    return folder, path, format_, options, before


def test_every_format_is_here():
    assert {format_ for format_, _ in CASES.values()} >= formats().keys()


@on_linux
def test_the_files_that_are_listed_are_opened_and_no_others(case):
    folder, path, format_, options, _ = case
    with opened_files(folder) as opened:
        kdiff.load(path, **options)
    assert opened == {file.resolve() for file in files(path)}
    found = find_format(path).NAME
    assert found == format_


def test_the_hash_is_of_the_files_that_are_listed(case):
    _, path, _, _, before = case
    listed = files(path)
    if listed == [path]:
        assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        assert before == by_hand(listed, path if path.is_dir() else path.parent)
    assert sha256(path) == before


@pytest.mark.parametrize("write", PIPELINES)
def test_the_hash_of_a_folder_that_has_nothing_else_is_of_all_its_files(write, tmp_path):
    path, _ = write(tmp_path)
    assert sha256(path) == by_hand([p for p in path.rglob("*") if p.is_file()], path)


def test_pipelines_with_a_link_to_their_unet_differ_as_it_does(tmp_path):
    for seed in (0, 1):
        unet(seed).save_pretrained(tmp_path / f"unet{seed}")
        pipeline(tmp_path / f"p{seed}")
        shutil.rmtree(tmp_path / f"p{seed}" / "unet")
        (tmp_path / f"p{seed}" / "unet").symlink_to(tmp_path / f"unet{seed}")
    assert sha256(tmp_path / "p0") != sha256(tmp_path / "p1")
    assert sha256(tmp_path / "p0") == sha256(pipeline(tmp_path / "whole"))


def test_the_hash_of_a_unet_is_of_the_scheduler_beside_it_too(tmp_path):
    path, _ = a_linked_unet(tmp_path)
    before = sha256(path)
    assert before == sha256(tmp_path / "pipeline" / "unet")
    file = tmp_path / "pipeline" / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace("epsilon", "v_prediction"))
    assert sha256(path) != before


@on_linux
def test_a_setting_that_names_other_files_is_followed(tmp_path):
    network = unet()
    for variant in (None, "fp16"):
        network.save_pretrained(tmp_path / "unet", variant=variant)
    named, options = a_config_beside_it(tmp_path)
    config = tmp_path / "elsewhere" / "config.json"
    config.parent.mkdir()
    shutil.copy(named.with_suffix(".json"), config)
    for path, told in ((tmp_path / "unet", {"variant": "fp16"}), (named, {"config": str(config)})):
        hashed = sha256(path, **told)
        assert hashed != sha256(path)
        with opened_files(tmp_path) as opened:
            kdiff.load(path, **told, **options)
        listed = {file.resolve() for file in files(path, **told)}
        beside = {named.with_suffix(".json")}  # by which a k-diffusion file is recognised
        assert listed <= opened <= listed | beside
        (file,) = {config, tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors"} & listed
        file.write_bytes(file.read_bytes() + b" ")
        assert sha256(path, **told) != hashed


def test_commands_hash_what_they_are_told_to_read(tmp_path):
    unet().save_pretrained(tmp_path / "unet", variant="fp16")
    out = ["--num", "1", "--steps", "1", "--out", str(tmp_path / "out")]
    model = ["--model", str(tmp_path / "unet"), "--set", "variant=fp16"]
    result = CliRunner().invoke(main, ["sample", *model, *out])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model_sha256"] == sha256(tmp_path / "unet", variant="fp16")


def test_what_is_no_checkpoint_has_no_hash(tmp_path):
    (tmp_path / "notes.txt").write_text("1")
    with pytest.raises(ValueError, match="is of no format that kdiff reads"):
        sha256(tmp_path / "notes.txt")


def test_another_packages_format_lists_the_files_of_a_folder(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    mine = SimpleNamespace(NAME="mine", detect=lambda path: None)
    monkeypatch.setattr(kdiff.checkpoints, "formats", lambda: {"mine": mine})
    assert sha256(tmp_path / "a") == hashlib.sha256(b"a").hexdigest()
    with pytest.raises(ValueError, match="mine does not say which files it reads"):
        sha256(tmp_path)
    mine.files = lambda path: [tmp_path / "b", tmp_path / "a"]
    assert sha256(tmp_path) == by_hand([tmp_path / "a", tmp_path / "b"], tmp_path)


# --- links and indices that lead nowhere ---

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", ["unet", "scheduler", "unet/config.json", WEIGHTS])
@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_a_link_to_nothing_is_named(name, target, tmp_path):
    part = pipeline(tmp_path / "pipeline") / name
    part.rename(tmp_path / "moved")
    part.symlink_to(part.name if target == "itself" else "nowhere")
    if name == WEIGHTS:  # which would be read in its place
        unet(1).save_pretrained(tmp_path / "other", safe_serialization=False)
        weights = "diffusion_pytorch_model.bin"
        (tmp_path / "other" / weights).rename(tmp_path / "pipeline" / "unet" / weights)
    with pytest.raises(ValueError, match=f"{name} is a link that leads to nothing$"):
        kdiff.load(tmp_path / "pipeline")
    with pytest.raises(ValueError, match=f"{name} (is a link that leads to nothing|cannot be)"):
        sha256(tmp_path / "pipeline")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
@pytest.mark.parametrize("name", ["scheduler/scheduler_config.json", "unet/config.json", WEIGHTS])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    file = pipeline(tmp_path / "pipeline") / name
    file.unlink()
    os.mkfifo(file)
    for use in (kdiff.load, sha256):
        with pytest.raises(ValueError, match=r"no (scheduler_|config|diff)|not a reg"):
            use(tmp_path / "pipeline")


@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_a_file_that_is_a_link_to_nothing(target, tmp_path):
    (tmp_path / "itself").symlink_to(target)
    with pytest.raises(ValueError, match=r"itself is a link that leads to nothing$"):
        kdiff.load(tmp_path / "itself")


@pytest.fixture
def nobody(monkeypatch):
    """A user who, unlike root, needs permissions; kdiff itself may lie where only root can read."""
    if os.geteuid() != 0:
        yield
        return
    packaged = packaged_models()
    monkeypatch.setattr("kdiff.models.packaged_models", lambda: packaged)
    with pytest.raises(ValueError):
        kdiff.load(__file__)  # all modules that this takes
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="has no such permissions")
def test_a_file_that_may_not_be_read(nobody):
    folder = Path(tempfile.mkdtemp())  # pytest's is root's
    path = folder / "model.pt"
    path.write_bytes(b"")
    path.chmod(0)
    for use in (kdiff.load, sha256):
        with pytest.raises(ValueError, match=r"cannot be read: Permission denied$"):
            use(path)
    folder.chmod(0)
    with pytest.raises(ValueError, match="neither a file"):
        kdiff.load(path)
    folder.chmod(0o700)
    shutil.rmtree(folder)


@on_linux
@pytest.mark.parametrize(
    "weight_map",
    [
        *({"w": name} for name in ("../w.safetensors", "/w.safetensors", "a/w.safetensors")),
        *({"w": name} for name in ("..", "", "w.bin", "w.gguf", "no.safetensors", 1, None)),
        *([], {}, None, "w.safetensors"),
    ],
)
def test_an_index_that_names_something_else_than_files_beside_it(weight_map, tmp_path):
    path, _ = shards(tmp_path)
    for place in (tmp_path, path, path / "a"):
        place.mkdir(exist_ok=True)
        for name in ("w.safetensors", "w.bin", "w.gguf"):
            save_file({"w": torch.zeros(1)}, place / name)
    index = path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with opened_files(tmp_path) as opened, pytest.raises(ValueError, match=r"index\.json names"):
        kdiff.load(path)
    assert opened == {path / "config.json", index}
