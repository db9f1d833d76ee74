"""Mean and covariance of a stream of features, in float64 and constant memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PORTION = 256  # rows folded at a time: one matrix product, little memory


class Moments:
    """Sums of x and of x x^T over rows that come in any portions; two of them add up.

    Rows are kept until there are more than `dim` of them. The covariance of so few has a low rank,
    and the rows themselves describe it better; folding many rows at a time is one matrix product.
    """

    def __init__(self, dim: int):
        self.dim = dim
        self._waiting: list[np.ndarray] = []
        self._folded = 0
        self._sum = np.zeros(dim)
        self._products = np.zeros((dim, dim))

    @property
    def n(self) -> int:
        """How many rows there were."""
        return self._folded + sum(map(len, self._waiting))

    @property
    def rows(self) -> np.ndarray | None:
        """All rows, `[n, dim]`, while n <= dim; else None."""
        return None if self._folded else self._rest()

    def _rest(self) -> np.ndarray:
        return np.concatenate([np.empty((0, self.dim)), *self._waiting])

    def update(self, rows: np.ndarray, indices: Sequence[int] = ()) -> None:
        """Add `[n, dim]`; the images' numbers do not matter. ValueError if the rows have another
        shape or are not finite."""
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"features must be [n, {self.dim}], not {list(rows.shape)}")
        if not np.isfinite(rows).all():
            raise ValueError("the features are not finite")
        self._waiting.append(np.array(rows, dtype=np.float64))
        if self.n - self._folded > (PORTION if self._folded else self.dim):
            self._fold()

    def _fold(self) -> None:
        rest = self._rest()
        self._sum += rest.sum(0)
        self._products += rest.T @ rest
        self._folded, self._waiting = self.n, []

    def _totals(self) -> tuple[np.ndarray, np.ndarray]:
        """The sums of x, `[dim]`, and of x x^T, `[dim, dim]`."""
        rest = self._rest()
        return self._sum + rest.sum(0), self._products + rest.T @ rest

    def __add__(self, other: Moments) -> Moments:
        """The moments of both streams together. ValueError if their dimensions differ."""
        if other.dim != self.dim:
            raise ValueError(f"cannot add features of {self.dim} and {other.dim} dimensions")
        both = Moments(self.dim)
        both._folded = self._folded + other._folded
        both._sum = self._sum + other._sum
        both._products = self._products + other._products
        for rows in (*self._waiting, *other._waiting):
            both.update(rows)
        return both

    @property
    def mean(self) -> np.ndarray:
        """`[dim]`. ValueError if there are no rows."""
        if self.n == 0:
            raise ValueError("a mean needs at least one image")
        return (self._sum + self._rest().sum(0)) / self.n

    @property
    def cov(self) -> np.ndarray:
        """`[dim, dim]`, unbiased: divided by n - 1. ValueError if there are fewer than two rows."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least two images, not {self.n}")
        _, cov = self._totals()
        cov -= self.n * np.outer(self.mean, self.mean)
        cov /= self.n - 1
        return cov
