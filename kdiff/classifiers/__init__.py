"""Classifiers of noisy images, p(y | x0 + sigma n), for classifier guidance."""

from kdiff.classifiers.classifier import Classifier, FunctionClassifier, NoisyClassifier
from kdiff.classifiers.loading import load_classifier, packaged_classifiers

__all__ = [
    "Classifier",
    "FunctionClassifier",
    "NoisyClassifier",
    "load_classifier",
    "packaged_classifiers",
]
