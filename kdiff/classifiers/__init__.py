"""Classifiers of noisy images."""
