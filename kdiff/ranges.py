"""Where a model's schedules begin, and which range of noise levels its data ask for.

Schedules start from N(0, sigma_max^2), where the data at that noise level are x0 + sigma_max n. The
two differ most in the direction in which the data reach furthest from zero: with a root mean square
rho there (rho^2 is the largest eigenvalue of E[x0 x0^T]), the data at that noise level have
sqrt(sigma_max^2 + rho^2). At sigma_max = 4 rho the start is short of this by 3%, in this one
direction; at 2 rho by 11%, which is the lesser evil if few evaluations must come down from
there. For CIFAR-10 rho is about 16, so that EDM's sigma_max of 80 is 5 rho. Song and Ermon (2020,
technique 1) take the largest distance between two images, which has the same size.

At the lower end 0.004 of the data's standard deviation is left as noise: EDM's 0.002 for 0.5, a
quarter of one of 256 grey levels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def suggest(clean: Tensor, model: Any) -> dict[str, float]:
    """The range for data like `clean` `[N, ..]`, within the model's: `sigma_min`, `sigma_max`,
    `few`, a sigma_max for 10 evaluations or fewer; and what it is made from, `rho` and `std`."""
    x = clean.flatten(1).double()
    rho, std = float(torch.linalg.matrix_norm(x, 2)) / len(x) ** 0.5, float(x.std())
    low, high = model.sigma_min, model.sigma_max
    return {
        "sigma_min": max(low, 0.004 * std),
        "sigma_max": min(high, max(4 * rho, 2 * low)),
        "few": min(high, max(2 * rho, 2 * low)),
        "rho": rho,
        "std": std,
    }


def beginning(model: Any) -> str | None:
    """One line if by default schedules begin below the end of the model's table, and why."""
    table, own = getattr(model, "sigmas", None), getattr(model, "precond", model)
    if not table or model.sigma_max != own.sigma_max:
        return None
    end = getattr(own, "sigma_end", None) or model.sigma_max
    if end == table[-1]:
        return None
    bounded = end > 1e5  # v and x0 begin where sigma is as good as infinite
    why = "nothing of the data is left above" if bounded else "an error of eps counts sigma times"
    last = f"{table[-1]:,.0f}" if table[-1] < 1e6 else f"{table[-1]:.4g}"
    return (
        f"schedules begin at sigma {end:.4g}, not at {last}, where the table ends: {why}; "
        "sigma_max changes it"
    )
