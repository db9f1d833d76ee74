"""Declared against counted evaluations."""

from __future__ import annotations

import torch

from kdiff.certificates.finding import Finding
from kdiff.certificates.problems import STANDARD
from kdiff.certificates.runs import Options
from kdiff.driver import drive
from kdiff.noise import Noise
from kdiff.plans import Plan
from kdiff.samplers import Sampler
from kdiff.samplers.registry import Final
from kdiff.schedules import FINALS, schedule

STEPS = (1, 2, 3, 8)


def measure(sampler: Sampler, options: Options) -> Finding:
    """What the driver counts at 1, 2, 3 and 8 steps, with both endings, against what the sampler
    declares: a number, or, if it is adaptive, a limit."""
    counted: dict[str, list[int]] = {}
    failures = []
    for final in FINALS:
        counted[final] = []
        for steps in STEPS:
            n = count(sampler, options, steps, final)
            counted[final].append(n)
            declared = sampler.nfe(steps, final, options)
            most = options.get("limit", sampler.limit)
            if n != declared if sampler.limit is None else n > most:
                allowed = declared if sampler.limit is None else f"at most {most}"
                failures.append(f"{steps} steps to {final} take {n} evaluations, not {allowed}")
    return Finding(
        " ".join(map(str, counted["zero"])),
        {"steps": STEPS, **counted},
        "; ".join(failures),
    )


def count(sampler: Sampler, options: Options, steps: int, final: Final) -> int:
    model = STANDARD["wide"]
    sigmas = schedule("karras", steps, model, final=final)
    plan = Plan(sampler, options, sigmas, "karras")
    noise = Noise([0, 1], (3,), torch.float64)
    *_, last = drive(model, plan, model.sigma_max * noise.initial(), noise)
    return last.nfe
