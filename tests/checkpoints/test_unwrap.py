"""State dicts in the wrappers of training scripts. Each is built around one small network, and must
load as that network."""

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DataParallel

import kdiff
from kdiff.cli import main
from wrapped_weights import AVERAGE, EMA, FLAGS, NET, RAW, behind, is_network, torch_ema


def inside_names(part, tensors):
    """FSDP and activation checkpointing put their part in the middle of names."""
    return {key.replace(".", f".{part}.", 1): value for key, value in tensors.items()}


def without_dots(tensors):
    """LitEma's buffers for a network that is `model.diffusion_model`."""
    return {f"model_ema.diffusion_model{k.replace('.', '')}": v for k, v in tensors.items()}


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


def test_what_was_taken_out_of_names_is_said(path):
    torch.save(ONE["torch.compile"], path)
    told = kdiff.load(path, **FLAGS).facts["weights"]
    assert told.startswith("those in the file, without _orig_mod; ")


def test_one_network_under_two_names_is_no_choice(path):
    torch.save({"model": RAW, "ema": RAW}, path)
    assert kdiff.load(path, **FLAGS).facts["weights"] == "the moving average (ema)"
    torch.save({"model": RAW, "state_dict": RAW}, path)
    assert is_network(kdiff.load(path, **FLAGS), NET)


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
