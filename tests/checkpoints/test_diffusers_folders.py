"""Ways in which diffusers lays out its folders, and how kdiff.load reads each."""

import inspect
import json

import diffusers
import pytest
import torch

import kdiff
from diffusers_networks import LABELS, close, make_dit, make_unet, make_vae, normal, rewrite, save
from kdiff.checkpoints import diffusers_folder
from kdiff.networks.diffusers_models import ADAPTERS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


# the config.json of google/ddpm-cifar10-32
CIFAR10 = {
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}


def test_published_cifar10_network():
    with torch.device("meta"):
        network = diffusers.UNet2DModel.from_config(CIFAR10)
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
    assert ADAPTERS["UNet2DModel"](network).classes == 0


def test_flat_folder(tmp_path):
    """google/ddpm-cifar10-32: everything at the top, the weights pickled, old attention names."""
    network = make_unet(attention_head_dim=None)
    network.save_pretrained(tmp_path, safe_serialization=False)
    rewrite(tmp_path / "config.json", attention_head_dim=None)
    diffusers.DDPMScheduler(variance_type="fixed_large").save_pretrained(tmp_path)
    parts = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline", **parts}))
    weights = tmp_path / "diffusion_pytorch_model.bin"
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    tensors = torch.load(weights)
    for new, name in old.items():
        tensors = {k.replace(new, name): v for k, v in tensors.items()}
    torch.save(tensors, weights)
    model = kdiff.load(tmp_path)
    z = normal(2, 3, 8, 8)
    close(model.network(z, torch.tensor([7.0, 7.0])), network(z, 7).sample)
    assert model.facts["format"] == "diffusers DDPMPipeline"
    assert model.facts["parameterisation"] == "eps, from its prediction_type epsilon"


def test_early_dit_folder(tmp_path):
    network = make_dit()
    network.save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", _class_name="Transformer2DModel", attention_type="default")
    model = kdiff.load(tmp_path)
    z = normal(2, 4, 8, 8)
    close(
        model.network(z, torch.tensor([7.0, 7.0]), class_labels=LABELS),
        network(z, torch.tensor([7, 7]), LABELS).sample,
    )


def test_the_unet_of_a_pipeline_has_its_scheduler(tmp_path):
    save(tmp_path, make_unet(), diffusers.DDIMScheduler(prediction_type="v_prediction"))
    model = kdiff.load(tmp_path / "unet")
    assert model.facts["parameterisation"] == "v, from its prediction_type v_prediction"


def test_variants_shards_and_dtypes(tmp_path):
    network = make_unet()
    network.save_pretrained(tmp_path / "fp16", variant="fp16")
    with pytest.raises(ValueError, match=r"fp16\.safetensors: give variant"):
        kdiff.load(tmp_path / "fp16")
    network.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    for safe in (True, False):
        folder = tmp_path / f"half, {safe}"
        make_unet().half().save_pretrained(folder, safe_serialization=safe)
        assert kdiff.load(folder).dtype == torch.float32
        assert kdiff.load(folder, dtype=None).dtype == torch.float16
    mixed = make_unet().half()
    mixed.time_embedding.float()
    mixed.save_pretrained(tmp_path / "mixed")
    assert kdiff.load(tmp_path / "mixed", dtype=None).dtype == torch.float32
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    z, t = normal(2, 3, 8, 8), torch.tensor([7.0, 7.0])
    for model in (kdiff.load(tmp_path / "fp16", variant="fp16"), kdiff.load(tmp_path / "shards")):
        close(model.network(z, t), network(z, 7).sample)
    assert kdiff.load(tmp_path / "shards", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_overrides(tmp_path):
    save(tmp_path, make_unet())
    model = kdiff.load(tmp_path, prediction="v", sigma_max=80)
    assert (model.precond.name, model.sigma_max) == ("v", 80)


def test_loading_leaves_the_global_generator_alone(tmp_path):
    save(tmp_path, make_unet())
    before = torch.get_rng_state()
    kdiff.load(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_latents_move_with_their_decoder(tmp_path):
    diffusers.DiTPipeline(make_dit(), make_vae(), diffusers.DDIMScheduler()).save_pretrained(
        tmp_path
    )
    model = kdiff.load(tmp_path).to(dtype=torch.float64)
    assert model.decode(normal(3, 4, 8, 8).double(), batch=2).dtype == torch.float64


def test_options_of_the_format():
    parameters = inspect.signature(diffusers_folder.load).parameters
    told = ["shape", "precond", "prediction", "shift"]
    assert list(parameters) == ["path", *told, "variant", "dtype"]
