"""What k-diffusion has and kdiff does not, with what to use in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_TRAINING = "it is for training, and kdiff only samples"
_SCHEDULER = "it is for training; torch.optim.lr_scheduler has such schedules"
_PART = "it is a part of k-diffusion's networks; K.config.make_model builds them whole"
_FEATURES = "its weights are not kdiff's; `kdiff.eval.feature_network` takes a function of your own"
_SETTING = "it saves memory in training, and kdiff's networks have no such switch"
_RENAMED = "the networks are in K.models itself"

MISSING: dict[str, dict[str, str]] = {
    "augmentation": {
        "KarrasAugmentationPipeline": _TRAINING,
        "rotate2d": _TRAINING,
        "scale2d": _TRAINING,
        "translate2d": _TRAINING,
    },
    "evaluation": {"CLIPFeatureExtractor": _FEATURES, "DINOv2FeatureExtractor": _FEATURES},
    "gns": {"DDPGradientStatsHook": _TRAINING, "GradientNoiseScale": _TRAINING},
    "layers": {
        "dct": "it is for losses with scales, which kdiff does not have",
        "freq_weight_1d": "it is for losses with scales, which kdiff does not have",
        "freq_weight_nd": "it is for losses with scales, which kdiff does not have",
        "ResidualBlock": _PART,
        "ConditionedModule": _PART,
        "UnconditionedModule": _PART,
        "ConditionedSequential": _PART,
        "ConditionedResidualBlock": _PART,
        "AdaGN": _PART,
        "SelfAttention2d": _PART,
        "CrossAttention2d": _PART,
        "Downsample2d": _PART,
        "Upsample2d": _PART,
        "UNet": _PART,
    },
    "models": {
        "ImageTransformerDenoiserModelV1": "kdiff has the networks image_v1 and "
        "image_transformer_v2",
        "axial_rope": _PART,
        "checkpointing": _SETTING,
        "flags": _SETTING,
        "get_checkpointing": _SETTING,
        "flops": "kdiff counts no operations; torch.utils.flop_counter does",
        "image_transformer_v1": "kdiff has the networks image_v1 and image_transformer_v2",
        "image_transformer_v2": _RENAMED,
        "image_v1": _RENAMED,
    },
    "utils": {
        "download_file": "kdiff downloads nothing; fetch the file and check its hash yourself",
        "ConstantLRWithWarmup": _SCHEDULER,
        "ExponentialLR": _SCHEDULER,
        "FolderOfImages": "it is for training; torchvision.datasets.ImageFolder is like it",
        "InverseLR": _SCHEDULER,
    },
}


def says_what_is_missing(module: str) -> Callable[[str], Any]:
    """A module's `__getattr__`: NotImplementedError for a name that k-diffusion has there, which,
    unlike AttributeError, also gets through an import of it; AttributeError for other names."""

    def __getattr__(name: str) -> Any:  # noqa: N807
        reason = MISSING[module].get(name)
        if reason is None:
            raise AttributeError(f"module 'k_diffusion.{module}' has no attribute {name!r}")
        raise NotImplementedError(f"kdiff has no k_diffusion.{module}.{name}: {reason}")

    return __getattr__
