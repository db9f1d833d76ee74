"""Tiny text-to-image pipelines of diffusers with random weights, their tokenizers included. Nothing
is downloaded."""

import json

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from diffusers_networks import make_condition, make_sd3, seeded

WORDS = ("cat", "dog", "red", "blue", "photo", "blurry")
TOKENS = 16  # that the CLIP tokenizers here read
WIDTH = 12  # of the T5 encoder, and of what networks attend to


def clip_tokenizer(folder):
    """Byte-level BPE, as OpenAI's, with merges that make one token of each of `WORDS`."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    vocab = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for right in rest:
            merges.append(f"{left} {right}")
            left += right
            vocab.append(left)
    vocab = [*dict.fromkeys(vocab), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocab)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=TOKENS)


def t5_tokenizer():
    """Unigram, with the special tokens of T5."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [(letter, -5.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    words = [(f"▁{word}", -3.0) for word in WORDS]
    return T5TokenizerFast(vocab=[*special, *letters, *words], extra_ids=0)


def clip(tokenizer, projection=None, width=6, seed=0, **config):
    """A CLIP text encoder: with a projection to `projection` numbers, or without."""
    settings = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=projection or 8,
        **config,
    )
    kind = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    return random(lambda: kind(settings), seed)


def t5(tokenizer, seed=0):
    settings = T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=4, d_ff=16, num_layers=2, num_heads=2
    )
    return random(lambda: T5EncoderModel(settings), seed)


def random(make, seed):
    """Wider than transformers makes them: else all prompts would be nearly the same."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = make().eval().requires_grad_(False)
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return made


def vae(channels=4, **config):
    """It halves the sides."""
    return seeded(
        diffusers.AutoencoderKL,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        latent_channels=channels,
        **config,
    )


BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def stable_diffusion(folder, **betas):
    """Stable Diffusion 1, or 2 with `prediction_type="v_prediction"`."""
    tokenizer = clip_tokenizer(folder / "made")
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        unet=make_condition(cross_attention_dim=WIDTH),
        text_encoder=clip(tokenizer, width=WIDTH),
        tokenizer=tokenizer,
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="trailing", **BETAS, **betas),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(folder, **settings):
    first, second = clip_tokenizer(folder / "made"), clip_tokenizer(folder / "made")
    pooled, ids = 10, 2
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        unet=make_condition(
            cross_attention_dim=WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=ids,
            projection_class_embeddings_input_dim=6 * ids + pooled,
        ),
        text_encoder=clip(first),
        text_encoder_2=clip(second, pooled, seed=1),
        tokenizer=first,
        tokenizer_2=second,
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="trailing", **BETAS),
        add_watermarker=False,
        **settings,
    )


def stable_diffusion_3(folder, **flow):
    first, second, third = *(clip_tokenizer(folder / "made") for _ in range(2)), t5_tokenizer()
    return diffusers.StableDiffusion3Pipeline(
        transformer=make_sd3(),
        vae=vae(shift_factor=0.06),
        text_encoder=clip(first, 4, width=4),
        text_encoder_2=clip(second, 6, seed=1),
        text_encoder_3=t5(third),
        tokenizer=first,
        tokenizer_2=second,
        tokenizer_3=third,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**flow),
    )


def flux(folder, guidance_embeds=True, **flow):
    first, second = clip_tokenizer(folder / "made"), t5_tokenizer()
    transformer = seeded(
        diffusers.FluxTransformer2DModel,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=6,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=guidance_embeds,
    )
    return diffusers.FluxPipeline(
        transformer=transformer,
        vae=vae(shift_factor=0.06, scaling_factor=0.36),
        text_encoder=clip(first),
        text_encoder_2=t5(second),
        tokenizer=first,
        tokenizer_2=second,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**flow),
    )
