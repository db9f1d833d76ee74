"""OpenAI's files that lack a setting, or hold another network than a denoiser."""

import pytest
import torch

import kdiff
from kdiff.checkpoints import openai
from openai_files import FLAGS, SHAPE, saved, small


def test_what_a_file_does_not_say_must_be_told(tmp_path):
    path = saved(tmp_path, small())
    with pytest.raises(ValueError, match=r"multipliers 1, 2: give shape=\(3, height, width\)"):
        kdiff.load(path, **FLAGS)
    with pytest.raises(ValueError, match="multiples of 2"):
        kdiff.load(path, shape=(3, 9, 8), **FLAGS)
    with pytest.raises(ValueError, match="give num_heads or num_head_channels, and noise_schedule"):
        kdiff.load(path, shape=SHAPE, num_heads=2)
    with pytest.raises(ValueError, match="one of linear, cosine, not 'sqrt'"):
        kdiff.load(path, shape=SHAPE, num_heads=2, noise_schedule="sqrt")
    with pytest.raises(ValueError, match="with 4000 diffusion_steps give rescale_timesteps"):
        kdiff.load(path, shape=SHAPE, diffusion_steps=4000, **FLAGS)
    with pytest.raises(ValueError, match="cannot be split into such heads"):
        kdiff.load(path, shape=SHAPE, num_heads=3, noise_schedule="linear")


def classifier(tensors):
    for key in [key for key in tensors if key.startswith("output_blocks.")]:
        del tensors[key]


def upsampler(tensors):
    first = tensors["input_blocks.0.0.weight"]
    tensors["input_blocks.0.0.weight"] = torch.cat([first, first], dim=1)


def text_conditioned(tensors):
    tensors["middle_block.1.transformer_blocks.0.norm1.weight"] = torch.zeros(32)


def incomplete(tensors):
    del tensors["middle_block.2.emb_layers.1.bias"]


def irregular(tensors):
    tensors["output_blocks.4.0.in_layers.0.weight"] = torch.zeros(32)


def without_a_level(tensors):
    del tensors["input_blocks.3.0.out_layers.3.weight"]


def of_four_bytes(tensors):
    tensors["label_emb.weight"] = torch.zeros(1).expand(10**9, 128)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (classifier, "a classifier"),
        (upsampler, "an upsampler"),
        (text_conditioned, "text conditioning"),
        (incomplete, "do not fit: .*middle_block.2.emb_layers.1.bias"),
        (irregular, "not the same at all levels"),
        (without_a_level, "has a tensor 'input_blocks.3.0.out_layers.3.weight'"),
        (of_four_bytes, "not stored in the file"),
    ],
)
def test_variants_that_are_refused(change, says, tmp_path):
    with pytest.raises(ValueError, match=says) as caught:
        kdiff.load(saved(tmp_path, small(), change), shape=SHAPE, **FLAGS)
    assert "\n" not in str(caught.value)


def test_detect_says_what_is_missing(tmp_path):
    path = saved(tmp_path, small())
    assert openai.detect(path) is None
    path.write_bytes(path.read_bytes()[:5000])
    assert "not a torch.save file" in openai.detect(path)
    torch.save({"weight": torch.zeros(2)}, path)
    assert openai.detect(path) == "no time_embed.0.weight"
    torch.save({"time_embed.0.weight": torch.zeros(2)}, path)
    assert openai.detect(path) == "no input_blocks.0.0.weight"
