"""Inversion: up to noise and down again."""

from __future__ import annotations

from kdiff.certificates.finding import Finding
from kdiff.certificates.problems import STANDARD
from kdiff.certificates.runs import Options, as_ode, grid, rms, solve
from kdiff.samplers import Sampler

STEPS = (32, 64, 128)
SIGMA_MAX, SIGMA_MIN = 20.0, 0.02
FALLS = 0.8  # twice the steps, at most this much of the error
ROUNDING = 1e-9
SMALL = 0.1


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """The data's quantiles at sigma = 0.02 up to 20 and down again with the same sampler: how far
    they are off, rms over the data's standard deviation. It must fall with
    more steps; of an adaptive sampler, be below a tenth."""
    ode = as_ode(sampler, options)
    if ode is None:
        return None
    model = STANDARD["wide"]
    start = model.quantiles(64, SIGMA_MIN)
    errors = []
    for steps in STEPS:
        levels = grid(steps, SIGMA_MIN, SIGMA_MAX)
        noise = solve(sampler, ode, levels[::-1], model, start).x
        back = solve(sampler, ode, levels, model, noise).x
        errors.append(rms(back - start) / model.std)
    first, *_, last = errors
    falls = last <= max(ROUNDING, FALLS ** (len(errors) - 1) * first)
    if sampler.limit is not None:  # its steps are its own
        falls = last <= SMALL
    return Finding(
        f"{errors[1]:.1e}",
        {"steps": STEPS, "errors": errors},
        "" if falls else f"up and down does not converge: {first:.2g}, then {last:.2g}",
    )
