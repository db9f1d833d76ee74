"""State dicts in the wrappers of training scripts: each is built here around one small network, and
must load as that network."""

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DataParallel

import kdiff
from kdiff.checkpoints import MissingSetting, edm_weights, openai, unwrap
from kdiff.cli import main
from kdiff.networks import SongUNet
from kdiff.networks.dhariwal_unet import DhariwalUNet
from kdiff.networks.edm2_unet import EDM2UNet
from kdiff.networks.openai_unet import OpenAIUNet

SHAPE = (3, 8, 8)
FLAGS = {"shape": SHAPE, "num_heads": 2, "noise_schedule": "linear"}


def make(seed=0):
    """A network with OpenAI's names, all of whose weights differ from those of another seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = OpenAIUNet(32, (1, 2), 1, (1,), num_heads=2)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


NET, EMA = make(0), make(1)
RAW, AVERAGE = NET.state_dict(), EMA.state_dict()


def behind(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


def inside_names(part, tensors):
    """As FSDP and activation checkpointing do: in the middle of names."""
    return {key.replace(".", f".{part}.", 1): value for key, value in tensors.items()}


def without_dots(tensors):
    """LitEma's buffers, of a network that is `model.diffusion_model`."""
    return {f"model_ema.diffusion_model{k.replace('.', '')}": v for k, v in tensors.items()}


def torch_ema(tensors):
    return {"decay": 0.999, "num_updates": 3, "shadow_params": list(tensors.values())}


class Compiled(nn.Module):
    def __init__(self, network):
        super().__init__()
        self._orig_mod = network


LDM = {
    **behind("model.diffusion_model.", RAW),
    **without_dots(AVERAGE),
    "model_ema.decay": torch.tensor(0.9999),
    "model_ema.num_updates": torch.tensor(7),
    "betas": torch.linspace(1e-4, 0.02, 10),
    "first_stage_model.encoder.conv_in.weight": torch.zeros(4, 3, 3, 3),
}
ONE = {
    "bare": RAW,
    "DataParallel": DataParallel(NET).state_dict(),
    "torch.compile": Compiled(NET).state_dict(),
    "both": behind("module._orig_mod.", RAW),
    "FSDP": inside_names("_fsdp_wrapped_module", behind("_fsdp_wrapped_module.", RAW)),
    "DeepSpeed": behind("_forward_module.", RAW),
    "model": {"model": RAW, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    "model_state_dict": {"model_state_dict": RAW, "loss": 0.1},
    "net": {"net": behind("module.", RAW), "step": 9},
    "params": {"params": RAW},
    "nested": {"checkpoint": {"state_dict": {"network": behind("unet.", RAW)}}},
    "Lightning": {"state_dict": behind("model.", RAW), "hyper_parameters": {"lr": 1e-4}},
    "denoiser": behind("denoiser.", RAW),
    "no average yet": {"model": RAW, "ema": None, "ema_decay": 0.999},
}
TWO = {
    "model, ema": {"model": RAW, "ema": AVERAGE},
    "state_dict, ema_state_dict": {"state_dict": RAW, "ema_state_dict": behind("module.", AVERAGE)},
    "state_dict, state_dict_ema": {"state_dict": RAW, "state_dict_ema": AVERAGE},
    "net, net_ema": {"net": RAW, "net_ema": AVERAGE},
    "params, params_ema": {"params": RAW, "params_ema": AVERAGE},
    "torchcfm": {"net_model": RAW, "ema_model": AVERAGE, "step": 3},
    "Lightning": {"state_dict": {**behind("model.", RAW), **behind("ema.", AVERAGE)}},
    "Lightning, average in it": {
        "state_dict": {**behind("net.", RAW), **behind("net.ema_model.module.", AVERAGE)}
    },
    "ema_pytorch": {
        "model": behind("unet.", RAW),
        "ema": {
            **behind("online_model.", RAW),
            **behind("ema_model.", AVERAGE),
            "initted": torch.tensor(True),
        },
    },
    "latent diffusion": {"state_dict": LDM},
    "torch_ema": {"model": RAW, "ema": torch_ema(AVERAGE)},
    "a list": {"model": RAW, "ema": list(AVERAGE.values())},
    "a tuple": {"model": RAW, "ema_params": tuple(AVERAGE.values())},
    "a dict of averages": {"model": RAW, "ema": {"decay": 0.99, "shadow": AVERAGE}},
    "AveragedModel": {"model": RAW, "averaged": {"n_averaged": 3, **behind("module.", AVERAGE)}},
    "compiled and parallel": {
        "model": behind("_orig_mod.module.", RAW),
        "ema": behind("_orig_mod.", AVERAGE),
    },
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.pt"


def is_network(model, network):
    ours, theirs = model.network.state_dict(), network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("wrapper", ONE)
def test_the_only_network_is_found(wrapper, path):
    torch.save(ONE[wrapper], path)
    model = kdiff.load(path, **FLAGS)
    assert is_network(model, NET)
    told = model.facts.get("weights", "")
    assert told == "" if wrapper == "bare" else "no moving average" in told


@pytest.mark.parametrize("wrapper", TWO)
def test_the_moving_average_is_preferred_and_the_other_can_be_chosen(wrapper, path):
    torch.save(TWO[wrapper], path)
    model = kdiff.load(path, **FLAGS)
    assert is_network(model, EMA)
    assert model.facts["weights"].startswith("the moving average (")
    raw = kdiff.load(path, weights="model", **FLAGS)
    assert is_network(raw, NET)
    assert raw.facts["weights"].endswith(", as told")
    assert is_network(kdiff.load(path, weights="ema", **FLAGS), EMA)


@pytest.mark.parametrize("wrapper", ["bare", "DataParallel", "FSDP", "denoiser"])
def test_safetensors_are_unwrapped_as_well(wrapper, tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({key: value.clone() for key, value in ONE[wrapper].items()}, path)
    assert is_network(kdiff.load(path, **FLAGS), NET)
    both = {**behind("model.", RAW), **behind("ema_model.", AVERAGE)}
    save_file({key: value.clone() for key, value in both.items()}, path)
    assert is_network(kdiff.load(path, **FLAGS), EMA)


def test_what_fits_twice_must_be_named(path):
    torch.save({"ema_0.99": AVERAGE, "ema_0.999": RAW, "model": RAW}, path)
    with pytest.raises(MissingSetting, match=r"give weights= one of ema_0\.99, ema_0\.999$"):
        kdiff.load(path, **FLAGS)
    assert is_network(kdiff.load(path, weights="ema_0.99", **FLAGS), EMA)
    torch.save({"teacher": RAW, "student": AVERAGE}, path)
    with pytest.raises(MissingSetting, match=r"give weights= one of teacher, student$"):
        kdiff.load(path, **FLAGS)
    with pytest.raises(ValueError, match=r"weights='tutor' is not in it; .*teacher, student$"):
        kdiff.load(path, weights="tutor", **FLAGS)
    with pytest.raises(ValueError, match="weights must be a name"):
        kdiff.load(path, weights=1, **FLAGS)
    assert is_network(kdiff.load(path, weights="student", **FLAGS), EMA)


@pytest.mark.parametrize("lost", [{"other": torch.ones(2)}, torch_ema({"a": torch.ones(1)})])
def test_an_average_that_does_not_fit_is_not_passed_over(lost, path):
    torch.save({"model": RAW, "ema": lost}, path)
    with pytest.raises(MissingSetting, match=r"moving average, ema, does not fit .*weights=model"):
        kdiff.load(path, **FLAGS)
    assert is_network(kdiff.load(path, weights="model", **FLAGS), NET)


def test_an_average_deep_inside_is_not_passed_over_either(path):
    callbacks = {"EMA": {"ema_weights": list(AVERAGE.values())}}
    optimizer = {"state": {"w": {"exp_avg": torch.ones(2)}}}
    saved = {"state_dict": behind("model.", RAW), "callbacks": callbacks, "optimizer": optimizer}
    torch.save(saved, path)
    lost = r"moving average, callbacks\.EMA, does not fit .*weights=model"
    with pytest.raises(MissingSetting, match=lost):
        kdiff.load(path, **FLAGS)
    assert is_network(kdiff.load(path, weights="model", **FLAGS), NET)
    torch.save({**saved, "callbacks": {}}, path)
    assert is_network(kdiff.load(path, **FLAGS), NET)


def test_what_was_taken_out_of_names_is_said(path):
    torch.save(ONE["torch.compile"], path)
    told = kdiff.load(path, **FLAGS).facts["weights"]
    assert told.startswith("those in the file, without _orig_mod; ")


def test_one_network_under_two_names_is_no_choice(path):
    torch.save({"model": RAW, "ema": RAW}, path)
    assert kdiff.load(path, **FLAGS).facts["weights"] == "the moving average (ema)"
    torch.save({"model": RAW, "state_dict": RAW}, path)
    assert is_network(kdiff.load(path, **FLAGS), NET)


def test_what_would_take_for_ever():
    many = {f"n{i}.{key}": torch.ones(1) for i in range(3000) for key in openai.MARKS}
    with pytest.raises(ValueError, match="3000 networks of one kind"):
        unwrap.find(many, openai.MARKS)
    inner = {str(i): torch.ones(1) for i in range(1000)}
    for _ in range(4):
        inner = {str(i): inner for i in range(1000)}
    assert unwrap.find(inner, openai.MARKS) == []


def test_a_dict_that_holds_itself(path):
    saved = {"model": RAW}
    saved["self"] = saved
    torch.save(saved, path)
    assert is_network(kdiff.load(path, **FLAGS), NET)


def test_the_command_line_chooses_too(path):
    torch.save(TWO["model, ema"], path)
    settings = ["shape=3,8,8", "num_heads=2", "noise_schedule=linear", "weights=model"]
    options = [word for text in settings for word in ("--set", text)]
    result = CliRunner().invoke(main, ["inspect", str(path), "--no-health", *options])
    assert result.exit_code == 0, result.output
    assert "those in model, as told" in result.output


# --- the tensors alone of EDM's and kdiff's networks ---

KINDS = {
    "DDPM++": lambda: SongUNet(
        8, model_channels=8, num_blocks=1, channel_mult=[1, 2], label_dim=3, attn_resolutions=[4]
    ),
    "NCSN++": lambda: SongUNet(
        **{"img_resolution": 16, "in_channels": 1, "out_channels": 1, "augment_dim": 9},
        **{"model_channels": 8, "num_blocks": 2, "channel_mult": [1, 2, 2]},
        **{"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2},
        resample_filter=[1, 3, 3, 1],
    ),
    "ADM": lambda: DhariwalUNet(
        8, model_channels=64, num_blocks=1, channel_mult=[1, 2], label_dim=3, attn_resolutions=[4]
    ),
    "EDM2": lambda: EDM2UNet(
        8,
        4,
        model_channels=64,
        num_blocks=1,
        channel_mult=[1, 2],
        label_dim=3,
        attn_resolutions=[4],
    ),
}


def nonzero(network):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_averages_has_no_buffers(kind, path):
    network, average = nonzero(KINDS[kind]()), nonzero(KINDS[kind]())
    listed = [parameter.detach() + 1 for parameter in average.parameters()]
    torch.save({"model": network.state_dict(), "ema": {"shadow_params": listed}}, path)
    model = kdiff.load(path, precond="edm")
    assert model.facts["weights"] == "the moving average (ema)"
    assert all(map(torch.equal, model.network.parameters(), listed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "model._orig_mod.", "unet."])
def test_a_plain_file_of_one_of_kdiffs_networks(kind, prefix, tmp_path):
    network = nonzero(KINDS[kind]())
    path = tmp_path / "net.safetensors"
    save_file(behind(prefix, network.state_dict()), path)
    if kind == "EDM2":
        assert "assumed" in kdiff.load(path).facts["parameterisation"]
    else:
        with pytest.raises(MissingSetting, match="give precond= one of edm, vp"):
            kdiff.load(path)
    model = kdiff.load(path, precond="edm")
    expected = kdiff.Denoiser(network, "edm", shape=model.shape)
    x = torch.ones(2, *model.shape)
    labels = {"class_labels": torch.tensor([0, 2])} if model.classes else {}
    with torch.no_grad():
        expected.classes = model.classes
        assert torch.equal(model(x, 0.7, **labels), expected(x, 0.7, **labels))
    config = edm_weights._architecture({k: tuple(v.shape) for k, v in network.state_dict().items()})
    assert config[0] is type(network)


# --- refusals ---


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)


def refused(path):
    with pytest.raises(ValueError) as caught:
        kdiff.load(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300 + len(str(path))
    return message


def test_a_refusal_names_the_wrapper_that_was_seen(path):
    torch.save({"ema": behind("module.net.", Mine().state_dict())}, path)
    message = refused(path)
    assert "4 tensors in ema, behind module.net., such as module.net.first.weight" in message
    assert message.endswith("for a network of your own use kdiff.wrap")


NAMES = {
    "diffusers' U-Net: give the folder": (
        *("conv_in.weight", "time_embedding.linear_1.weight", "conv_norm_out.weight"),
        "down_blocks.0.resnets.0.conv1.weight",
    ),
    "DiT in its authors' form: convert it": (
        *("x_embedder.proj.weight", "t_embedder.mlp.0.weight", "final_layer.linear.weight"),
    ),
    "an autoencoder: it denoises nothing": (*("encoder.conv_in.weight", "decoder.conv_in.weight"),),
    "a LoRA: it is part of a network": (
        *("down_blocks.0.to_q.lora_down.weight", "down_blocks.0.to_q.lora_up.weight"),
    ),
    "lucidrains: no time_mlp.1.weight": ("init_conv.weight", "final_conv.weight"),
    "openai: no middle_block.0.in_layers.2.weight": (
        *("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"),
    ),
}


@pytest.mark.parametrize("nearest", NAMES)
def test_a_refusal_names_the_nearest_network(nearest, path):
    torch.save({"state_dict": {f"model.{name}": torch.ones(1) for name in NAMES[nearest]}}, path)
    assert f"nearest: {nearest}" in refused(path)


def test_a_whole_module_is_not_opened_and_the_class_is_named(path):
    torch.save({"model": Mine()}, path)
    message = refused(path)
    assert "Mine" in message and "save just the network's state_dict()" in message


def test_a_file_of_an_old_torch(path):
    torch.save(RAW, path, _use_new_zipfile_serialization=False)
    assert "torch.save before its version 1.6: load it there, and save it again" in refused(path)


def test_stable_diffusion_in_its_authors_form(path):
    names = ("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "output_blocks.0.0.weight")
    saved = dict.fromkeys((*openai.MARKS, *names), torch.ones(1))
    torch.save({"state_dict": behind("model.diffusion_model.", saved)}, path)
    assert "as Stable Diffusion's: kdiff reads that from a folder of diffusers" in refused(path)


def test_take_says_what_is_nowhere():
    with pytest.raises(ValueError, match=r"no a\.weight"):
        unwrap.take({"model": {"b": torch.ones(1)}}, ["a.weight"])
