"""The classifiers that `tools/train_classifier.py --noisy` writes."""

FORMAT = "kdiff-classifier/1"
