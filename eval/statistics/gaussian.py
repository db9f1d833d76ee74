"""A mean and a covariance: what a reference knows of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from kdiff.eval.statistics.moments import Moments

EPSILON = np.finfo(np.float64).eps
NOT_A_COVARIANCE = 1e-3  # how negative an eigenvalue may be, relative to the largest


@dataclass(frozen=True, eq=False)
class Gaussian:
    """`mean` [dim], `cov` [dim, dim], and the number of images behind them, if known.

    ValueError if the shapes do not fit, a number is not finite, or `cov` is not symmetric.
    """

    mean: np.ndarray
    cov: np.ndarray
    n: int | None = None
    rows: ClassVar[None] = None

    def __post_init__(self) -> None:
        mean, cov = (np.asarray(a, dtype=np.float64) for a in (self.mean, self.cov))
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
            raise ValueError(
                "a reference is a mean [dim] and a covariance [dim, dim], not "
                f"{list(mean.shape)} and {list(cov.shape)}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
            raise ValueError("the reference's mean or covariance is not finite")
        if not np.allclose(cov, cov.T, rtol=0, atol=1e-6 * abs(cov).max(initial=0)):
            raise ValueError("the reference's covariance is not symmetric")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", (cov + cov.T) / 2)

    @classmethod
    def of(cls, moments: Moments) -> Gaussian:
        """The mean and covariance of what was streamed."""
        return cls(moments.mean, moments.cov, moments.n)

    @classmethod
    def of_file(cls, mean: np.ndarray, cov: np.ndarray, n: int | None = None) -> Gaussian:
        """From a file, which may hold anything. ValueError unless they are floats that fit."""
        if not mean.dtype.kind == cov.dtype.kind == "f" or mean.size == 0:
            raise ValueError("its mean and covariance are not arrays of floats")
        return cls(mean, cov, n)

    def save(self) -> dict[str, np.ndarray]:
        """In float32: `mean`, and of `cov` the upper triangle row by row, `[dim (dim + 1) / 2]`,
        which moves FID by 2e-9."""
        triangle = self.cov[np.triu_indices(len(self.mean))]
        return {"mean": self.mean.astype(np.float32), "cov": triangle.astype(np.float32)}

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], n: int | None) -> Gaussian:
        """What `save` gave. KeyError if an array is missing, ValueError if the two do not fit."""
        mean, triangle = arrays["mean"], arrays["cov"]
        d = mean.size
        if triangle.shape != (d * (d + 1) // 2,):
            raise ValueError(f"its {d} means and {triangle.size} covariances do not fit")
        cov = np.zeros((d, d), triangle.dtype)
        cov[np.triu_indices(d)] = triangle
        return cls.of_file(mean, cov + np.triu(cov, 1).T, n)

    @cached_property
    def factor(self) -> np.ndarray:
        """L with L L^T = cov, `[dim, rank]`: Cholesky's, or, if cov is singular, eigenvectors times
        the roots of the eigenvalues that are above rounding.

        A narrow L keeps directions that have no variance out of every later product, where their
        rounding would come back as its square root. ValueError if cov has a negative eigenvalue
        that rounding does not explain.
        """
        try:
            lower = np.linalg.cholesky(self.cov)
        except np.linalg.LinAlgError:
            return self._narrow_factor()
        pivots = lower.diagonal() ** 2
        regular = pivots.min() > len(self.mean) * EPSILON * self.cov.diagonal().max()
        return lower if regular else self._narrow_factor()

    def _narrow_factor(self) -> np.ndarray:
        values, vectors = np.linalg.eigh(self.cov)
        if values[0] < -NOT_A_COVARIANCE * values[-1]:
            raise ValueError("the reference's covariance has negative eigenvalues, so it is none")
        kept = values > len(values) * EPSILON * values[-1]
        return vectors[:, kept] * np.sqrt(values[kept])
