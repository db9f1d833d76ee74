"""What a model says of its data: their mean and spread, from which `first="analytic"` answers.

A model may have `data_mean`, a number or nested lists that are spread over one sample (a number for
each channel, `[[[r]], [[g]], [[b]]]`, or for each pixel), and `data_std`, the root mean square
distance of the data from it. The packaged `cifar10` has both. A model that has neither, but EDM's
preconditioner, is taken to have a mean of 0 and its sigma_data for the spread, as EDM's own
training assumes.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, get_args

import numpy as np

from kdiff.counts import finite_number
from kdiff.files import to_json
from kdiff.samplers.first import Gaussian

First = Literal["analytic"]
FIRSTS: tuple[First, ...] = get_args(First)
_MOST_SHOWN = 16  # numbers of a mean in a record; longer ones are known by their hash


def first_of(model: Any, first: First | None) -> Gaussian | None:
    """What the first answer is made of; None if it is the network's. ValueError if there is no such
    `first`, or the model does not say what it needs."""
    if first is None:
        return None
    if first not in FIRSTS:
        raise ValueError(f"first must be {' or '.join(FIRSTS)}, or left out, not {first!r:.80}")
    found = gaussian_of(model)
    if found is None:
        name = getattr(model, "name", "the model")
        raise ValueError(
            f"first=analytic needs the mean and spread of the data, which {name} does not say: set "
            "its data_mean and data_std, or leave first out"
        )
    return found


def gaussian_of(model: Any) -> Gaussian | None:
    """The model's data as one Gaussian, None if it does not say them. ValueError if what it says
    makes no sense."""
    mean, std = getattr(model, "data_mean", None), getattr(model, "data_std", None)
    if std is None:
        std = _sigma_data(getattr(model, "precond", None))
    if std is None:
        return None
    std = finite_number("data_std", std)
    if not std > 0:
        raise ValueError(f"data_std must be above 0, not {std:g}")
    return Gaussian(_mean(mean, getattr(model, "shape", None)), std)


def _mean(mean: Any, shape: Any) -> Any:
    """As nested lists. ValueError unless finite and of a shape that can be spread over `shape`."""
    try:
        array = np.asarray(0.0 if mean is None else mean, dtype=np.float64)
        if not np.isfinite(array).all():
            raise ValueError("it is not finite")
        if shape is not None and np.broadcast_shapes(array.shape, tuple(shape)) != tuple(shape):
            raise ValueError(f"its shape is {array.shape}, and a sample's {tuple(shape)}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"data_mean must be numbers for one sample: {error}") from error
    return array.tolist()


def _sigma_data(precond: Any) -> float | None:
    """Of EDM's preconditioner; None of any other."""
    config = getattr(precond, "config", None) or {}
    return config.get("sigma_data", 0.5) if config.get("name") == "edm" else None


def first_record(data: Gaussian) -> dict[str, Any]:
    """As plain values, for results to carry."""
    count = np.size(data.mean)
    digest = hashlib.sha256(to_json(data.mean, indent=None).encode()).hexdigest()
    mean = data.mean if count <= _MOST_SHOWN else {"numbers": count, "sha256": digest}
    return {"name": "analytic", "mean": mean, "std": data.std}
