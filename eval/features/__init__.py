"""Feature networks: uint8 images to features, by name."""

# isort: off
# These register their networks, in the order in which `kdiff list` shows them.
import kdiff.eval.features.inception_features
import kdiff.eval.features.cifar10_classifier  # noqa: F401

# isort: on
from kdiff.eval.features.inception_features import CPU_BATCH, GPU_BATCH
from kdiff.eval.features.network import FeatureNetwork, Features
from kdiff.eval.features.registry import (
    DEFAULT_FEATURES,
    DEFAULT_RESIZE,
    FEATURES,
    feature_network,
    feature_networks,
)

__all__ = [
    "CPU_BATCH",
    "DEFAULT_FEATURES",
    "DEFAULT_RESIZE",
    "FEATURES",
    "GPU_BATCH",
    "FeatureNetwork",
    "Features",
    "feature_network",
    "feature_networks",
]
