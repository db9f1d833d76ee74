"""Evaluation: features, statistics, metrics, references, sweeps and reports."""
