"""How adaptive samplers choose their next step by the error of the last ones."""

from __future__ import annotations

import math
from typing import Any

_WORST = 1e30  # stands for an infinite error, whose powers have no value


def power(a: float, b: float) -> float:
    """a^b; infinity where that leaves the range of floats."""
    try:
        return a**b
    except OverflowError:
        return math.inf


class PIDStepSizeController:
    """Chooses the step size `h` by the errors of the last three steps (Hairer & Wanner, "Solving
    Ordinary Differential Equations II", IV.2; Soderlind 2003). A step is accepted unless its error
    asks for one shorter than `accept_safety` times itself."""

    def __init__(
        self,
        h: float,
        pcoeff: float,
        icoeff: float,
        dcoeff: float,
        order: float = 1,
        accept_safety: float = 0.81,
        eps: float = 1e-8,
    ):
        self.h = h
        self.exponents = (
            (pcoeff + icoeff + dcoeff) / order,
            -(pcoeff + 2 * dcoeff) / order,
            dcoeff / order,
        )
        self.accept_safety = accept_safety
        self.eps = eps
        self.accuracies: list[float] = []  # 1 / error of the steps before, newest first

    def limiter(self, x: float) -> float:
        """x near 1, within 0.2 and 2.6."""
        return 1 + math.atan(x - 1)

    def propose_step(self, error: Any) -> bool:
        """Whether a step with that error (1: as much as is tolerated) is accepted; changes `h`."""
        accuracy = 1 / (min(float(error), _WORST) + self.eps)
        before = self.accuracies or [accuracy, accuracy]
        recent = [accuracy, *before]
        factor = self.limiter(math.prod(map(power, recent, self.exponents)))
        accept = factor >= self.accept_safety
        self.accuracies = recent[:2] if accept else before
        self.h *= factor
        return accept


class Elementary:
    """h becomes 0.9 error^(-1 / (order + 1)) h, at least a fifth and at most ten times h, and not
    more than h right after a step that was not accepted (Hairer, Norsett & Wanner 1993, II.4, as
    in scipy). `order` is the error estimate's."""

    def __init__(self, h: float, order: int):
        self.h, self.exponent = h, -1 / (order + 1)
        self._rejected = False

    def propose_step(self, error: float) -> bool:
        """Whether a step with that error (1: as much as is tolerated) is accepted; changes `h`."""
        accept = error < 1
        factor = max(0.2, 0.9 * error**self.exponent) if error else 10.0
        self.h *= min(factor, 1.0 if self._rejected and accept else 10.0)
        self._rejected = not accept
        return accept
