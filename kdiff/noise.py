"""Noise as a pure function of the seed and the interval of noise levels.

Every number comes from a counter-based generator (Philox, Salmon et al. 2011) keyed by the seed,
with the interval in its counter. So a seed's noise does not depend on the batch that it is in, on
the device, on other seeds, or on what was drawn before, and no global generator is touched.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kdiff.counts import finite_number, seed_number, sizes, whole_number
from kdiff.normals import combination, normals

# Where normals are drawn: the words of the counter but the first, the last one first.
Node = tuple[int, int, int]
_INITIAL, _WHITE, _BROWNIAN, _OCTAVE = range(4)
MOST_DRAWS = 2**24  # on one interval

# The Brownian path is resolved to 2^-LEVELS of an octave of sigma and is linear below that; 1000
# steps from 80 to 0.002 are a sixty-fifth of an octave on average.
LEVELS = 12
# Below this, noise levels count as equal: log2 has to end somewhere, and W(0) is then finite.
SMALLEST_SIGMA = 2.0**-60


def _bits(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]


class Noise:
    """The noise of a batch of seeds (each an int in [0, 2^64)), as `[len(seeds), *shape]` tensors.

    All draws are made in float32 on the CPU, so that they are the same bits on every device, and
    then cast to `dtype` and moved to `device`.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"noise needs a floating-point dtype, not {dtype}")
        self.seeds = [seed_number(seed) for seed in seeds]
        self.shape = sizes(shape)
        self.dtype, self.device = dtype, device
        self._nodes: dict[Node, np.ndarray] = {}

    def initial(self) -> Tensor:
        """Standard normal: the start, before it is scaled by the first sigma."""
        return self._tensor(*self._normals([(_INITIAL, 0, 0)]))

    def white(self, s: float, t: float, draw: int = 0, *, stream: str = "") -> Tensor:
        """Standard normal, independent for each different (s, t), each `draw` (a whole number below
        2^24) and each `stream`."""
        s, t = finite_number("a noise level", s), finite_number("a noise level", t)
        node = _WHITE | _source(draw, stream), _bits(s), _bits(t)
        return self._tensor(*self._normals([node]))

    def brownian(self, s: float, t: float, draw: int = 0, *, stream: str = "") -> Tensor:
        """(W(t) - W(s)) / sqrt(|lambda_t - lambda_s|) for one Brownian path W over
        lambda = -log2(sigma): standard normal, independent over disjoint intervals, and adding up
        over adjoining ones, however the steps are chosen; all this for intervals that are long
        against 2^-LEVELS, below which the path is straight (and what it is divided by is always
        its exact standard deviation). Each `draw` and each `stream` has a path of its own.
        ValueError if s = t.
        """
        s, t = finite_number("a noise level", s), finite_number("a noise level", t)
        terms = _increment(s, t, _source(draw, stream))
        norm = math.sqrt(sum(c * c for c in terms.values()))
        if norm == 0:
            raise ValueError(f"no Brownian increment between equal noise levels {s} and {t}")
        # The next interval shares an end, and most nodes, with this one.
        fresh = [node for node in terms if node not in self._nodes]
        known = {**self._nodes, **dict(zip(fresh, self._normals(fresh), strict=True))}
        self._nodes = {node: known[node] for node in terms}
        weights = [c / norm for c in terms.values()]
        return self._tensor(combination(list(self._nodes.values()), weights))

    def _normals(self, nodes: Sequence[Node]) -> list[np.ndarray]:
        """`[seeds, numbers of a sample]` at each node."""
        counters = [(0, a % 2**64, b, kind) for kind, a, b in nodes]
        return normals(self.seeds, counters, math.prod(self.shape))

    def _tensor(self, draws: np.ndarray) -> Tensor:
        shaped = draws.reshape(len(self.seeds), *self.shape)
        return torch.from_numpy(shaped).to(device=self.device, dtype=self.dtype)


def _source(draw: int, stream: str) -> int:
    """What is added to the kind of noise in the counter: 0 for the first draw of the main stream,
    else bits 2 to 25 for the draw, and 26 to 63 for the stream's name."""
    draw = whole_number("a draw of noise", draw, 0, MOST_DRAWS - 1)
    if not stream:
        return draw << 2
    digest = hashlib.sha256(stream.encode()).digest()
    name = int.from_bytes(digest[:8], "little") >> 26 or 1
    return name << 26 | draw << 2


def _increment(s: float, t: float, source: int = 0) -> dict[Node, float]:
    """W(t) - W(s) as a combination of independent standard normals, each named by a node.

    The path is a sum over octaves of sigma, and in each a Levy-Ciesielski series: the increment
    over the whole octave, then a tent of height 2^(-level / 2 - 1) for each dyadic interval.
    """
    terms: dict[Node, float] = {}
    high, low = -math.log2(max(t, SMALLEST_SIGMA)), -math.log2(max(s, SMALLEST_SIGMA))
    sign = 1.0
    if high < low:
        high, low, sign = low, high, -1.0
    for octave in range(math.floor(low), math.floor(high)):
        terms[_OCTAVE | source, octave, 0] = sign
    for end, weight in ((high, sign), (low, -sign)):
        for node, value in _within_octave(end, source):
            terms[node] = terms.get(node, 0.0) + weight * value
    return {node: c for node, c in terms.items() if c}


def _within_octave(clock: float, source: int) -> list[tuple[Node, float]]:
    octave = math.floor(clock)
    x = clock - octave
    terms = [((_OCTAVE | source, octave, 0), x)]
    for level in range(LEVELS):
        index, y = divmod(x * 2**level, 1.0)
        node = (_BROWNIAN | source, octave, 2**level + int(index))
        terms.append((node, 2 ** (-level / 2 - 1) * (1 - abs(2 * y - 1))))
    return terms
