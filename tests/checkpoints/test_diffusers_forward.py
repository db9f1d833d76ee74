"""Networks in diffusers' folders compute what diffusers' own code computes."""

import diffusers
import pytest
import torch

import kdiff
from diffusers_networks import (
    EMBEDDING,
    LABELS,
    POOLED,
    close,
    make_condition,
    make_dit,
    make_sd3,
    make_unet,
    normal,
    save,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


KINDS = {
    "UNet2DModel": (make_unet, {}, {}),
    "learned variance": (lambda: make_unet(out_channels=6), {}, {}),
    "classes": (lambda: make_unet(num_class_embeds=3), {"class_labels": LABELS}, None),
    "DiTTransformer2DModel": (make_dit, {"class_labels": LABELS}, None),
    "null class": (
        make_dit,
        {"class_labels": torch.tensor([-1, 0])},
        {"class_labels": torch.tensor([3, 0])},
    ),
    "no class": (make_dit, {}, {"class_labels": torch.tensor([3, 3])}),
    "UNet2DConditionModel": (make_condition, {"encoder_hidden_states": EMBEDDING}, None),
    "XL": (
        lambda: make_condition(
            addition_embed_type="text_time",
            addition_time_embed_dim=2,
            projection_class_embeddings_input_dim=2 * 2 + 10,
        ),
        {
            "encoder_hidden_states": EMBEDDING,
            "text_embeds": POOLED,
            "time_ids": torch.tensor([[8.0, 8.0], [8.0, 4.0]]),
        },
        {
            "encoder_hidden_states": EMBEDDING,
            "added_cond_kwargs": {
                "text_embeds": POOLED,
                "time_ids": torch.tensor([[8.0, 8.0], [8.0, 4.0]]),
            },
        },
    ),
}
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize("kind", KINDS)
def test_forward(kind, tmp_path):
    make, ours, theirs = KINDS[kind]
    network = make()
    network.save_pretrained(tmp_path)
    model = kdiff.load(tmp_path)
    latent = type(network).__name__ == "UNet2DConditionModel"
    a = diffusers.DDPMScheduler(**(STABLE_DIFFUSION if latent else {})).alphas_cumprod.double()
    for t in (0, 500, 999):
        alpha, sigma = a[t].sqrt().item(), (1 - a[t]).sqrt().item()
        z = normal(2, *model.shape)
        eps = network(z, timestep=torch.tensor([t, t]), **(ours if theirs is None else theirs))
        expected = (z - sigma * eps.sample[:, : z.shape[1]]) / alpha
        close(model(z / alpha, sigma / alpha, **ours), expected)
    assert "assumed" in model.facts["parameterisation"]


def test_forward_flow(tmp_path):
    network = make_sd3()
    network.save_pretrained(tmp_path)
    model = kdiff.load(tmp_path)
    cond = {"encoder_hidden_states": EMBEDDING, "pooled_projections": POOLED}
    for t in (0.001, 0.5, 0.999):
        z = normal(2, *model.shape)
        velocity = network(z, timestep=torch.full((2,), 1000 * t), **cond).sample
        close(model(z / (1 - t), t / (1 - t), **cond), z - t * velocity)


def test_what_conditioning_is_needed(tmp_path):
    for make, name in (
        (make_condition, "encoder_hidden_states"),
        (make_sd3, "encoder_hidden_states"),
        (lambda: make_unet(num_class_embeds=3), "class_labels"),
    ):
        model = kdiff.load(save(tmp_path / name / make().__class__.__name__, make()))
        with pytest.raises(ValueError, match=f"needs {name}"):
            kdiff.sample(model, steps=2)
    with pytest.raises(ValueError, match="no null class"):
        kdiff.sample(model, steps=2, class_labels=[-1])


def test_labels_for_a_network_without_classes(tmp_path):
    prompts = {"encoder_hidden_states": EMBEDDING[:1]}
    for make, cond in ((make_unet, {}), (make_condition, prompts)):
        model = kdiff.load(save(tmp_path / make.__name__, make()))
        with pytest.raises(ValueError, match="class"):
            kdiff.sample(model, steps=1, class_labels=[1], cond=cond)
