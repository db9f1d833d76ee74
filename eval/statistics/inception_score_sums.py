"""What the Inception Score takes of logits: sums of p and of p log p for each split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdiff.counts import whole_number


def _even(n: int, splits: int = 10) -> np.ndarray:
    """Images in a row cut at i n // splits: the split of each, `[n]`."""
    if n < splits:
        raise ValueError(f"an Inception Score over {splits} splits needs {splits} images, not {n}")
    cuts = np.arange(splits + 1) * n // splits
    return np.repeat(np.arange(splits), np.diff(cuts))


def _shuffled(n: int) -> np.ndarray:
    order = np.random.RandomState(2020).permutation(n)  # its fixed seed; a generator of its own
    split = np.empty(n, dtype=int)
    split[order] = _even(n)
    return split


@dataclass(frozen=True)
class Convention:
    """`split_of(n)` is each image's split, `[n]`; whether it states a std over the splits."""

    split_of: Callable[[int], np.ndarray]
    has_std: bool = True


CONVENTIONS: Mapping[str, Convention] = {
    "torch-fidelity": Convention(_shuffled),
    "openai": Convention(_even),  # Salimans et al. 2016: in the given order
    "guided-diffusion": Convention(lambda n: np.arange(n) // 5000, has_std=False),
}


class InceptionScoreSums:
    """exp(E_x KL(p(y|x) || p(y))) for each split, from 1 to `classes` (Salimans et al. 2016).

    Takes n images' logits in any portions and any order, each with its image's number; memory is
    splits x classes and a few bytes an image. Two of them, over different images, add up.
    ValueError if the convention is unknown or n is too small for its splits.
    """

    def __init__(self, n: int, classes: int, convention: str = "torch-fidelity"):
        if convention not in CONVENTIONS:
            raise ValueError(
                f"no convention '{convention}' of the Inception Score; there are "
                + ", ".join(CONVENTIONS)
            )
        self.n, self.classes = whole_number("n", n, 1), whole_number("classes", classes, 1)
        self.convention = convention
        self._split_of = CONVENTIONS[convention].split_of(self.n)
        self._sizes = np.bincount(self._split_of)
        self._seen = np.zeros(self.n, dtype=bool)
        self._p = np.zeros((len(self._sizes), self.classes))
        self._p_log_p = np.zeros(len(self._sizes))

    def update(self, logits: np.ndarray, indices: Sequence[int] | np.ndarray) -> None:
        """Add `[b, classes]` of the images with these numbers, each in [0, n).

        ValueError if the shape is another, a logit is not finite, or an image came before.
        """
        logits, indices = np.asarray(logits, np.float64), np.asarray(indices, int)
        if logits.shape != (len(indices), self.classes):
            raise ValueError(
                f"logits must be [{len(indices)}, {self.classes}], not {list(logits.shape)}"
            )
        if not np.isfinite(logits).all():
            raise ValueError("the logits are not finite")
        self._mark(indices)
        log_p = logits - logits.max(1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
        p = np.exp(log_p)
        split = self._split_of[indices]
        np.add.at(self._p, split, p)
        np.add.at(self._p_log_p, split, (p * log_p).sum(1))

    def _mark(self, indices: np.ndarray) -> None:
        if ((indices < 0) | (indices >= self.n)).any():
            raise ValueError(f"images are numbered from 0 to {self.n - 1}")
        if self._seen[indices].any() or len(np.unique(indices)) < len(indices):
            raise ValueError("an image came twice")
        self._seen[indices] = True

    def __add__(self, other: InceptionScoreSums) -> InceptionScoreSums:
        """The score of both streams together. ValueError if they are not parts of one set."""
        mine, theirs = ((s.n, s.classes, s.convention) for s in (self, other))
        if mine != theirs:
            raise ValueError("cannot add Inception Scores of different sizes or conventions")
        both = InceptionScoreSums(*mine)
        for part in (self, other):
            both._mark(np.flatnonzero(part._seen))
        both._p = self._p + other._p
        both._p_log_p = self._p_log_p + other._p_log_p
        return both

    @property
    def scores(self) -> np.ndarray:
        """Of each split: exp(mean of sum p log p - sum q log q), q being the mean of p. ValueError
        if images are missing."""
        if not self._seen.all():
            raise ValueError(f"{(~self._seen).sum()} of {self.n} images are missing")
        q = self._p / self._sizes[:, None]
        q_log_q = (q * np.log(q, where=q > 0, out=np.zeros_like(q))).sum(1)
        return np.exp(self._p_log_p / self._sizes - q_log_q)

    @property
    def mean(self) -> float:
        """Over the splits."""
        return float(self.scores.mean())

    @property
    def std(self) -> float | None:
        """Over the splits, ddof 0: the spread that papers print, not the mean's standard error.
        None where the convention states none."""
        return float(self.scores.std()) if CONVENTIONS[self.convention].has_std else None
