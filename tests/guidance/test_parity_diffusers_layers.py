"""Skipped layers and changed attention against diffusers: its guiders where they work, else its
pipelines' own parts. Where they differ, docs/guidance-methods.md says why."""

import diffusers
import pytest
import torch
from diffusers.guiders import (
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
    SmoothedEnergyGuidance,
)
from diffusers.hooks import LayerSkipConfig, SmoothedEnergyGuidanceConfig
from diffusers.hooks import smoothed_energy_guidance_utils as blurring
from diffusers.models.attention_processor import (
    PAGIdentitySelfAttnProcessor2_0,
    PAGJointAttnProcessor2_0,
)

import kdiff
from diffusers_networks import (
    EMBEDDING,
    LABELS,
    POOLED,
    close,
    make_condition,
    make_dit,
    make_sd3,
    normal,
    seeded,
)
from kdiff.guidance import cfg, pag, seg, slg
from kdiff.guidance.hooks import attention, skipped
from kdiff.guidance.layers import find_layers
from kdiff.guidance.perturbed_attention import identity
from kdiff.networks.diffusers_models import ADAPTERS

X, T = normal(2, 4, 8, 8), torch.tensor([10.0, 10.0])
PROMPT = {"encoder_hidden_states": EMBEDDING}
NEGATIVE = {"encoder_hidden_states": normal(2, 5, 12, seed=9)}
BOTH = {**PROMPT, "negative_encoder_hidden_states": NEGATIVE["encoder_hidden_states"]}
MIDDLE = "mid_block.attentions.0.transformer_blocks"
WITH_ATTENTION = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}


def predictions(guider, network, conditional, unconditional):
    """Those of the network, in the order in which the guider changes it."""
    for cond in (conditional, unconditional, conditional):
        guider.prepare_models(network)
        yield network(X, timestep=T, **cond, return_dict=False)[0]
        guider.cleanup_models(network)


def by_kdiff(network, guidance, cond):
    """`guidance(model)` of eps, from D."""
    model = kdiff.Denoiser(
        ADAPTERS[type(network).__name__](network),
        kdiff.precond("eps", alphas_cumprod="scaled_linear"),
        shape=(4, 8, 8),
        classes=("a", "b", "c") if "class_labels" in cond else (),
        learned_variance=None,
    )
    model.takes_prompts = "encoder_hidden_states" in cond
    sigma = model.sigmas[10]
    c = model.precond(sigma)
    assert c.c_noise == 10
    return (guidance(model)(X / c.c_in, sigma, **cond) - c.c_skip * X / c.c_in) / c.c_out


def test_slg():
    network, labels = make_dit(), {"class_labels": LABELS}
    guider = SkipLayerGuidance(3.0, 2.0, skip_layer_config=LayerSkipConfig([0]))
    none = {"class_labels": torch.tensor([3, 3])}
    theirs = guider.forward(*predictions(guider, network, labels, none)).pred
    close(by_kdiff(network, lambda m: slg(cfg(m, 3), 2, "0"), labels), theirs[:, :4])


def test_pag():
    network = make_condition(**WITH_ATTENTION)
    config = LayerSkipConfig(
        [0], fqn=MIDDLE, skip_attention=False, skip_attention_scores=True, skip_ff=False
    )
    guider = PerturbedAttentionGuidance(3.0, 2.0, perturbed_guidance_config=config)
    theirs = guider.forward(*predictions(guider, network, PROMPT, NEGATIVE)).pred
    close(by_kdiff(network, lambda m: pag(cfg(m, 3), 2), BOTH), theirs)


class Counting(SmoothedEnergyGuidance):
    def prepare_models(self, denoiser):
        self._count_prepared += 1  # which that of version 0.42 forgets, so that it changes nothing
        super().prepare_models(denoiser)


@pytest.mark.parametrize("blur", [1.0, float("inf")])
def test_seg(blur, monkeypatch):
    """Version 0.42 takes the mean where the blur is finite, and the other way around."""
    original = blurring._gaussian_blur_2d

    def right_way_around(q, size, sigma, threshold):
        return original(q, size, sigma, 0.0 if sigma < threshold else 2 * sigma)

    monkeypatch.setattr(blurring, "_gaussian_blur_2d", right_way_around)
    network = make_condition(**WITH_ATTENTION)
    config = SmoothedEnergyGuidanceConfig([0], fqn=MIDDLE)
    guider = Counting(3.0, 2.0, seg_blur_sigma=min(blur, 1e6), seg_guidance_config=config)
    theirs = guider.forward(*predictions(guider, network, PROMPT, NEGATIVE)).pred
    close(by_kdiff(network, lambda m: seg(cfg(m, 3), 2, blur), BOTH), theirs)


@pytest.mark.parametrize("layer", [0, 1])
def test_skipped_layers_of_sd3(layer):
    """Both streams pass through. (The guider of version 0.42 exchanges them.)"""
    network = make_sd3()
    arguments = {**PROMPT, "pooled_projections": POOLED, "timestep": T, "return_dict": False}
    theirs = network(X, **arguments, skip_layers=[layer])[0]
    with skipped(find_layers(network, str(layer))):
        close(network(X, **arguments)[0], theirs)


@pytest.mark.parametrize("layer", [0, 1])
def test_pag_of_sd3(layer):
    """Joint attention, in which the image's tokens see themselves and the text."""
    network = make_sd3()
    arguments = {"hidden_states": X, **PROMPT, "pooled_projections": POOLED, "timestep": T}
    with attention(network, find_layers(network, f"{layer}"), identity):
        ours = network(**arguments, return_dict=False)[0]
    with attention(network, find_layers(network, f"*.{layer}.attn"), identity):
        close(network(**arguments, return_dict=False)[0], ours)
    network.transformer_blocks[layer].attn.processor = PAGJointAttnProcessor2_0()
    twice = {key: torch.cat([value, value]) for key, value in arguments.items()}
    close(ours, network(**twice, return_dict=False)[0][2:])


def test_pag_leaves_cross_attention_alone_though_it_has_as_many_tokens():
    """16 tokens of text, and 16 in the middle of the U-Net."""
    network = make_condition(**WITH_ATTENTION)
    arguments = {"encoder_hidden_states": normal(2, 16, 12, seed=5), "timestep": T}
    plain = network(X, **arguments, return_dict=False)[0]
    with attention(network, find_layers(network, "mid_block"), identity):
        ours = network(X, **arguments, return_dict=False)[0]
    assert (ours - plain).abs().max() > 0.01
    network.mid_block.attentions[0].transformer_blocks[
        0
    ].attn1.processor = PAGIdentitySelfAttnProcessor2_0()
    twice = {key: torch.cat([value, value]) for key, value in arguments.items()}
    close(ours, network(torch.cat([X, X]), **twice, return_dict=False)[0][2:])
    cross = find_layers(network, "*attn2")
    with pytest.raises(ValueError, match="no self-attention"), attention(network, cross, identity):
        network(X, **arguments)


def make_flux():
    return seeded(
        diffusers.FluxTransformer2DModel,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(4, 6, 6),
    )


FLUX = {
    "hidden_states": normal(2, 16, 4, seed=6),
    "encoder_hidden_states": EMBEDDING,
    "pooled_projections": POOLED,
    "timestep": T / 1000,
    "txt_ids": torch.zeros(5, 3),
    "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
}


@pytest.mark.parametrize("block", ["transformer_blocks", "single_transformer_blocks"])
def test_skipped_layers_of_flux(block):
    network, shorter = make_flux(), make_flux()
    del getattr(shorter, block)[0]
    with skipped(find_layers(network, f"{block}.0")):
        close(network(**FLUX, return_dict=False)[0], shorter(**FLUX, return_dict=False)[0])


@pytest.mark.parametrize("block", ["transformer_blocks", "single_transformer_blocks"])
def test_pag_of_flux(block, monkeypatch):
    """Its text stands first, in the single blocks within one sequence."""
    network = make_flux()
    with attention(network, find_layers(network, f"{block}.0.attn"), identity):
        ours = network(**FLUX, return_dict=False)[0]

    original = torch.nn.functional.scaled_dot_product_attention
    calls = []

    def masked(**settings):
        calls.append(len(calls))
        if calls[-1] == ["transformer_blocks", "single_transformer_blocks"].index(block):
            seen = torch.ones(21, 21, dtype=torch.bool)
            seen[5:, 5:] = torch.eye(16, dtype=torch.bool)
            settings["attn_mask"] = seen
        return original(**settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", masked)
    theirs = network(**FLUX, return_dict=False)[0]
    assert len(calls) == 2
    close(ours, theirs)
