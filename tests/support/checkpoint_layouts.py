"""Writers of a checkpoint of each format and of each layout of a folder. Each writes to a folder,
and returns the path and the options that `load` needs."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import save_file

from kdiff.networks import SongUNet
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


def unet(seed=0):
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return diffusers.UNet2DModel(**UNET)


def pipeline(folder, seed=0):
    import diffusers

    diffusers.DDPMPipeline(unet(seed), diffusers.DDPMScheduler()).save_pretrained(folder)
    return folder


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
    """Each tensor in a file of its own with another name, one in a folder and one behind a link."""
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
