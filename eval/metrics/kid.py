"""The Kernel Inception Distance (Binkowski et al. 2018, "Demystifying MMD GANs")."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kdiff.counts import whole_number
from kdiff.eval.metrics.contract import METRICS, Estimate, Metric
from kdiff.eval.statistics.all_rows import AllRows


class KernelDistance(NamedTuple):
    """`mean` and `std` (ddof 0; None if a subset is all there is) over the subsets. The mean is
    unbiased, so slightly negative values are valid: the sets are then as close as two draws from
    one distribution."""

    mean: float
    std: float | None


def kernel_distance(
    reference: np.ndarray,
    features: np.ndarray,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 2020,
) -> KernelDistance:
    """The squared MMD of random subsets of `features` [n, dim] and `reference` [m, dim].

    Each subset has `size` rows without repetition, or as many as the smaller set has. The subsets
    are torch-fidelity's, seed included, so the same features give its figure; torch-fidelity
    computes in the features' own precision, this function in float64. clean-fid's figure is the
    same mean over subsets drawn without a seed. Either array may be an np.memmap.

    ValueError if the dimensions differ, a set has fewer than two rows, or the figure is not finite.
    """
    if reference.ndim != 2 or features.ndim != 2 or reference.shape[1] != features.shape[1]:
        raise ValueError(
            "features and reference must be [n, dim] and [m, dim], not "
            f"{list(features.shape)} and {list(reference.shape)}"
        )
    subsets = whole_number("subsets", subsets, 1)
    size = min(whole_number("size", size, 2), len(reference), len(features))
    if size < 2:
        raise ValueError("a kernel distance needs at least two images on either side")
    rng = np.random.RandomState(seed)  # np.random.Generator draws other subsets
    distances = []
    for _ in range(subsets):
        x = features[rng.choice(len(features), size, replace=False)]
        y = reference[rng.choice(len(reference), size, replace=False)]
        distances.append(mmd2(x.astype(np.float64), y.astype(np.float64)))
    if not np.isfinite(distances).all():
        raise ValueError("the features are not finite")
    spread = None if size == len(reference) == len(features) else float(np.std(distances))
    return KernelDistance(float(np.mean(distances)), spread)


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate of the squared MMD of rows x and y, `[m, dim]` each, with the kernel
    (x . y / dim + 1)^3 (Binkowski et al. 2018, eq. 4; Gretton et al. 2012, eq. 3)."""
    m = len(x)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    return within / (m * (m - 1)) - 2 * xy.mean()


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _of_rows(kept: AllRows, reference: np.ndarray) -> list[Estimate]:
    return [kernel_distance(reference, kept.rows)]


METRICS["kid"] = Metric(
    label="KID",
    help="Kernel distance (Binkowski et al. 2018), --ref being images; error: std over 100 subsets"
    " of 1,000",
    stream="rows",
    needs="rows",
    compute=_of_rows,
    aliases=("kernel_inception_distance",),
)
