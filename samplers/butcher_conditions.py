"""Butcher tableaux: the coefficients of explicit Runge-Kutta methods.

A step of size h of dy/du = f(y, u) is

    k_i = f(y + h sum_(j < i) a_ij k_j, u + c_i h),    y_next = y + h sum_i b_i k_i.

Its error is of order h^(p + 1) if for each rooted tree of at most p nodes one sum over the
coefficients has the value that the exact solution's Taylor series asks for (Hairer, Norsett &
Wanner 1993, theorem II.2.13). Each tableau is tested against these conditions when it is made.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-9
MOST_STAGES = 64
HIGHEST = 8  # the highest order whose conditions are tested where none is declared: 200 trees

Numbers = Sequence[float]
Tree = tuple  # a rooted tree is the sorted tuple of the trees on its root


@dataclass(frozen=True)
class Butcher:
    """`a`: for each stage, the weights of the stages before it. `b`: the weights of the step, of
    order `order`. `c`: where the stages are, from 0 to 1. `b_embedded`: weights of a second result,
    of order `order_embedded`, from the same stages, for an estimate of the error.

    ValueError unless it is explicit and consistent, and has the orders that it declares.
    """

    name: str
    a: Sequence[Numbers]
    b: Numbers
    c: Numbers
    order: int
    b_embedded: Numbers | None = None
    order_embedded: int | None = None
    source: str = ""

    def __post_init__(self) -> None:
        _check_shape(self)
        for i, (row, c) in enumerate(zip(self.a, self.c, strict=True), 1):
            if not abs(math.fsum(row) - c) <= TOLERANCE:
                raise ValueError(f"row {i} of a sums to {math.fsum(row):.12g}, c has {c:.12g}")
            if not 0 <= c <= 1:
                raise ValueError(f"c must be from 0 to 1, not {c:g}")
        for key, b, order in self._results():
            if not abs(math.fsum(b) - 1) <= TOLERANCE:
                raise ValueError(f"{key} sums to {math.fsum(b):.12g}, not to 1")
            if order_of(self.a, b, order) < order:
                raise ValueError(f"{key} is not of order {order}")

    def _results(self) -> Iterator[tuple[str, Numbers, int]]:
        yield "b", self.b, self.order
        if self.b_embedded is not None:
            yield "b_embedded", self.b_embedded, self.order_embedded or 1

    @property
    def stages(self) -> int:
        """How many stages the step itself needs: last ones that only the embedded result takes are
        left out. Methods of the first-same-as-last kind have one of these."""
        return max(i for i, b in enumerate(self.b, 1) if b)


def _check_shape(tableau: Butcher) -> None:
    s = len(tableau.b)
    if not 1 <= s <= MOST_STAGES:
        raise ValueError(f"it must have 1 to {MOST_STAGES} stages, not {s}")
    if len(tableau.a) != s or len(tableau.c) != s:
        raise ValueError(f"b has {s} stages, a has {len(tableau.a)}, c has {len(tableau.c)}")
    if tableau.b_embedded is not None and len(tableau.b_embedded) != s:
        raise ValueError(f"b has {s} stages, b_embedded has {len(tableau.b_embedded)}")
    for i, row in enumerate(tableau.a):
        if len(row) != i:
            raise ValueError(f"row {i + 1} of a must have {i} weights, not {len(row)}")


def order_of(a: Sequence[Numbers], b: Numbers, most: int = HIGHEST) -> int:
    """The order of the method, `most` at most: the order below the first tree whose condition
    sum_i b_i Phi_i = 1 / gamma does not hold."""
    matrix = np.zeros((len(b), len(b)))
    for i, row in enumerate(a):
        matrix[i, :i] = row
    for order in range(1, most + 1):
        for tree in _trees(order):
            _, density, phi = _weights(tree, matrix)
            if not abs(np.asarray(b) @ phi - 1 / density) < TOLERANCE:
                return order - 1
    return most


def _weights(tree: Tree, a: np.ndarray) -> tuple[int, int, np.ndarray]:
    """(nodes, density gamma, elementary weight Phi_i of each stage)."""
    nodes, density, phi = 1, 1, np.ones(len(a))
    for branch in tree:
        n, gamma, weights = _weights(branch, a)
        nodes, density, phi = nodes + n, density * gamma, phi * (a @ weights)
    return nodes, nodes * density, phi


@functools.cache
def _trees(nodes: int) -> Sequence[Tree]:
    if nodes == 1:
        return [()]
    return sorted({grown for tree in _trees(nodes - 1) for grown in _with_a_leaf(tree)})


def _with_a_leaf(tree: Tree) -> Iterator[Tree]:
    yield tuple(sorted((*tree, ())))
    for i, branch in enumerate(tree):
        for grown in _with_a_leaf(branch):
            yield tuple(sorted((*tree[:i], grown, *tree[i + 1 :])))
