"""Weights that kdiff cannot use: the refusal says what the file holds and what is nearest."""

import pytest
import torch
from torch import nn

import kdiff
from kdiff.checkpoints import MissingSetting, openai, unwrap
from wrapped_weights import AVERAGE, EMA, FLAGS, NET, RAW, behind, is_network, torch_ema


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


def test_what_would_take_for_ever():
    many = {f"n{i}.{key}": torch.ones(1) for i in range(3000) for key in openai.MARKS}
    with pytest.raises(ValueError, match="3000 networks of one kind"):
        unwrap.find(many, openai.MARKS)
    inner = {str(i): torch.ones(1) for i in range(1000)}
    for _ in range(4):
        inner = {str(i): inner for i in range(1000)}
    assert unwrap.find(inner, openai.MARKS) == []


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
