"""The explicit Runge-Kutta methods that have a name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from kdiff.samplers.butcher_conditions import Butcher, Numbers

R5 = math.sqrt(5)

TABLEAUX: dict[str, Butcher] = {}


def _rounded(c: float) -> float:
    """The simple fraction that `c` is but for rounding, if there is one: 1, not 0.9999999999999997,
    so that the last stage is where the step ends."""
    simple = float(Fraction(c).limit_denominator(1000))
    return simple if math.isclose(c, simple, rel_tol=1e-14) else c


def _named(
    name: str,
    order: int,
    a: Sequence[Numbers],
    b: Numbers,
    source: str,
    embedded: tuple[int, Numbers] = (0, ()),
) -> None:
    """`a` from its second row on; the stages are where its rows sum to."""
    rows = [(), *a]
    c = [_rounded(math.fsum(row)) for row in rows]
    lower, b_lower = embedded
    TABLEAUX[name] = Butcher(name, rows, b, c, order, b_lower or None, lower or None, source)


_named("euler", 1, [], [1], "Euler 1768")
_named("midpoint", 2, [[1 / 2]], [0, 1], "Runge 1895")
_named("heun2", 2, [[1]], [1 / 2, 1 / 2], "Heun 1900; with Euler's method embedded", (1, [1, 0]))
_named("ralston2", 2, [[2 / 3]], [1 / 4, 3 / 4], "Ralston 1962, eq. 3.5")
_named(
    "fehlberg2",
    2,
    [[1 / 2], [1 / 256, 255 / 256]],
    [1 / 512, 255 / 256, 1 / 512],
    "Fehlberg 1969 (NASA TR R-315), RK1(2)",
    (1, [1 / 256, 255 / 256, 0]),
)
_named("kutta3", 3, [[1 / 2], [-1, 2]], [1 / 6, 2 / 3, 1 / 6], "Kutta 1901")
_named("heun3", 3, [[1 / 3], [0, 2 / 3]], [1 / 4, 0, 3 / 4], "Heun 1900")
_named("ralston3", 3, [[1 / 2], [0, 3 / 4]], [2 / 9, 1 / 3, 4 / 9], "Ralston 1962, eq. 4.4")
_named("wray3", 3, [[8 / 15], [1 / 4, 5 / 12]], [1 / 4, 0, 3 / 4], "van der Houwen 1972; Wray")
_named("ssprk3", 3, [[1], [1 / 4, 1 / 4]], [1 / 6, 1 / 6, 2 / 3], "Shu & Osher 1988")
_named(
    "bogacki_shampine3",
    3,
    [[1 / 2], [0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]],
    [2 / 9, 1 / 3, 4 / 9, 0],
    "Bogacki & Shampine 1989",
    (2, [7 / 24, 1 / 4, 1 / 3, 1 / 8]),
)
_named("rk4", 4, [[1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], "Kutta 1901")
_named(
    "three_eighths",
    4,
    [[1 / 3], [-1 / 3, 1], [1, -1, 1]],
    [1 / 8, 3 / 8, 3 / 8, 1 / 8],
    "Kutta 1901, the 3/8 rule",
)
_named(
    "ralston4",
    4,
    [
        [2 / 5],
        [(-2889 + 1428 * R5) / 1024, (3785 - 1620 * R5) / 1024],
        [
            (-3365 + 2094 * R5) / 6040,
            (-975 - 3046 * R5) / 2552,
            (467040 + 203968 * R5) / 240845,
        ],
    ],
    [
        (263 + 24 * R5) / 1812,
        (125 - 1000 * R5) / 3828,
        (3426304 + 1661952 * R5) / 5924787,
        (30 - 4 * R5) / 123,
    ],
    "Ralston 1962, eq. 5.19",
)
_named(
    "fehlberg5",
    5,
    [
        [1 / 4],
        [3 / 32, 9 / 32],
        [1932 / 2197, -7200 / 2197, 7296 / 2197],
        [439 / 216, -8, 3680 / 513, -845 / 4104],
        [-8 / 27, 2, -3544 / 2565, 1859 / 4104, -11 / 40],
    ],
    [16 / 135, 0, 6656 / 12825, 28561 / 56430, -9 / 50, 2 / 55],
    "Fehlberg 1969 (NASA TR R-315), RK4(5)",
    (4, [25 / 216, 0, 1408 / 2565, 2197 / 4104, -1 / 5, 0]),
)
_named(
    "cash_karp5",
    5,
    [
        [1 / 5],
        [3 / 40, 9 / 40],
        [3 / 10, -9 / 10, 6 / 5],
        [-11 / 54, 5 / 2, -70 / 27, 35 / 27],
        [1631 / 55296, 175 / 512, 575 / 13824, 44275 / 110592, 253 / 4096],
    ],
    [37 / 378, 0, 250 / 621, 125 / 594, 0, 512 / 1771],
    "Cash & Karp 1990",
    (4, [2825 / 27648, 0, 18575 / 48384, 13525 / 55296, 277 / 14336, 1 / 4]),
)
_named(
    "dormand_prince5",
    5,
    [
        [1 / 5],
        [3 / 40, 9 / 40],
        [44 / 45, -56 / 15, 32 / 9],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    ],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
    "Dormand & Prince 1980",
    (4, [5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40]),
)
_named(
    "nystrom5",
    5,
    [
        [1 / 3],
        [4 / 25, 6 / 25],
        [1 / 4, -3, 15 / 4],
        [2 / 27, 10 / 9, -50 / 81, 8 / 81],
        [2 / 25, 12 / 25, 2 / 15, 8 / 75, 0],
    ],
    [23 / 192, 0, 125 / 192, 0, -27 / 64, 125 / 192],
    "Nystrom 1925",
)
_named(
    "butcher6",
    6,
    [
        [1 / 3],
        [0, 2 / 3],
        [1 / 12, 1 / 3, -1 / 12],
        [-1 / 16, 9 / 8, -3 / 16, -3 / 8],
        [0, 9 / 8, -3 / 8, -3 / 4, 1 / 2],
        [9 / 44, -9 / 11, 63 / 44, 18 / 11, 0, -16 / 11],
    ],
    [11 / 120, 0, 27 / 40, 27 / 40, -4 / 15, -4 / 15, 11 / 120],
    "Butcher 1964",
)

# What others call them.
ALIASES = {
    "heun": "heun2",
    "heun_euler": "heun2",
    "ralston": "ralston2",
    "bogacki_shampine": "bogacki_shampine3",
    "fehlberg": "fehlberg5",
    "cash_karp": "cash_karp5",
    "dormand_prince": "dormand_prince5",
}


def named(name: str) -> Butcher | None:
    """The tableau of this name or alias; None if there is none. Case does not count."""
    key = name.strip().lower().replace("-", "_")
    return TABLEAUX.get(ALIASES.get(key, key))
