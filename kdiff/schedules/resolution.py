"""How far a flow is shifted for images of a size."""

from __future__ import annotations


def resolution_mu(
    tokens: float,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_tokens: float = 256,
    max_tokens: float = 4096,
) -> float:
    """mu, linear in the number of tokens: from `base_shift` at `base_tokens` to `max_shift` at
    `max_tokens` (Esser et al. 2024, section 5.3.2; Flux). The shift is e^mu."""
    return base_shift + (max_shift - base_shift) * (tokens - base_tokens) / (
        max_tokens - base_tokens
    )
