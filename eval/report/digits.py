"""How figures are written."""

from __future__ import annotations

import math
from dataclasses import replace

from kdiff.eval.report.cells import Figure


def digits(figure: Figure) -> tuple[str, str | None]:
    """Value and error as printed: the value ends where its error does, which has two digits if
    they are 35 or less, else one (the Particle Data Group's rule, but 0.95 stays 0.9 or 1.0);
    four digits where no error is known, at most six."""
    value, error = figure.value, figure.error
    if not error:
        return significant(value), None if error is None else "0"
    exponent = math.floor(math.log10(error))
    place = -exponent + (error / 10.0**exponent < 3.55)
    most = 5 - (math.floor(math.log10(abs(value))) if value else 0)
    decimals = max(0, min(place, most))
    if decimals > 6:
        return f"{value:.3e}", f"{error:.1e}"
    return f"{value:.{decimals}f}", f"{error:.{decimals}f}" if place <= most else f"{error:.1g}"


def alike(a: Figure, b: Figure) -> bool:
    """Whether they are equal at the printed precision of either."""
    return any(digits(a)[0] == digits(replace(a, value=b.value))[0] for a, b in ((a, b), (b, a)))


def two_digits(value: float) -> str:
    """Of what is known roughly."""
    return f"{float(f'{value:.1e}'):g}"


def significant(value: float) -> str:
    """Four significant digits, those before the point all shown."""
    if value == 0:
        return "0"
    place = math.floor(math.log10(abs(value)))
    return f"{value:.3e}" if place < -4 else f"{value:.{max(0, 3 - place)}f}"
