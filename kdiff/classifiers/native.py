"""The classifiers that `tools/train_classifier.py --noisy` writes: safetensors whose metadata says
how to build the network."""

from __future__ import annotations

from pathlib import Path

import torch

from kdiff.checkpoints import native
from kdiff.checkpoints.weights import load_weights
from kdiff.classifiers.classifier import Classifier
from kdiff.networks import at_most
from kdiff.networks.noisy_classifier import NoisyClassifier
from kdiff.preconditioners import precond

FORMAT = "kdiff-classifier/1"
PRECOND = precond("edm", sigma_data=0.5)


def save(path: str | Path, network: NoisyClassifier, classes: list[str]) -> None:
    """Write the network, its matrices in float16, and the names of its classes."""
    config = {"network": network.config, "classes": classes}
    native.save(path, network.state_dict(), config, format=FORMAT)


def detect(path: Path) -> str | None:
    """None if the file says that it is such a classifier."""
    return native.detect_format(path, FORMAT)


def load(path: Path) -> Classifier:
    """The classifier in float32 on the CPU. ValueError if the file is damaged or does not fit."""
    try:
        config, tensors = native.contents(path)
        with torch.device("meta"), at_most(len(tensors)):
            network = NoisyClassifier(**config["network"])
        load_weights(network, tensors.items(), torch.float32)
        classes = [str(name) for name in config["classes"]]
        if len(classes) != network.classes:
            raise ValueError(f"{len(classes)} names of {network.classes} classes")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: its config and its tensors do not fit: {reason}") from error
    return Classifier(
        network.to(memory_format=torch.channels_last),
        PRECOND,
        shape=network.shape,
        classes=classes,
        name=path.stem,
        path=path,
        facts={"format": FORMAT},
    )
