"""Measures the mistakes of other projects' samplers that docs/peers.md lists, published against
corrected.

    python tools/show_mistake.py                 # their names
    python tools/show_mistake.py reab heunpp2    # these
    python tools/show_mistake.py all

Most measure the order of convergence on an exact ODE (tools/exact_ode.py), with kdiff's own sampler
and its option `as_published`. `diffusers_*` run
diffusers, which must be installed. Some read what the peer's code computed from tests/golden.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import exact_ode
from kdiff.samplers import Coroutine, resolve

GOLDEN = Path(__file__).parents[1] / "tests/golden"
STEPS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Ours:
    """A sampler of kdiff, by name."""

    name: str
    options: Mapping[str, Any]

    def __call__(self, x: Any, sigmas: Sequence[float]) -> Coroutine:
        found = resolve(self.name)
        return found.sampler.start(x, sigmas, options={**found.options, **self.options})

    def __str__(self) -> str:
        settings = (f"{k}={str(v).lower()}" for k, v in self.options.items())
        return " ".join((self.name, *settings))


@dataclass(frozen=True)
class Orders:
    """Solvers whose order of convergence is measured, each with the word for what it is."""

    peers: str
    rows: Sequence[tuple[str, Callable[..., Coroutine]]]

    def show(self) -> None:
        print(f"{'mean error at N =':<64}", *(f"{n:>8}" for n in STEPS), "   order")
        for word, solve in self.rows:
            errors = [exact_ode.error(solve, n) for n in STEPS]
            slope = exact_ode.order(STEPS, errors)
            print(f"{word:<10} {solve!s:<53}", *(f"{e:8.1e}" for e in errors), f"{slope:8.2f}")


@dataclass(frozen=True)
class Report:
    """What cannot be said by an order: a function that prints."""

    peers: str
    show: Callable[[], None]


def pair(name: str, **options: Any) -> list[tuple[str, Ours]]:
    return [
        ("published", Ours(name, {**options, "as_published": True})),
        ("corrected", Ours(name, options)),
    ]


class RungeKutta4:
    """The classical tableau on D, x_t = (t / s) x_s + (1 - t / s) sum_i b_i D_i, with its stages at
    levels that are linear in `variable`. D is dz/du of z = x / sigma, u = 1 / sigma."""

    A, B, C = [[], [0.5], [0, 0.5], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], [0, 0.5, 0.5, 1]

    def __init__(self, inverse: bool):
        self.inverse = inverse

    def __str__(self) -> str:
        return "Runge-Kutta 4 on D, stages linear in " + ("1 / sigma" if self.inverse else "sigma")

    def __call__(self, x: Any, sigmas: Sequence[float]) -> Coroutine:
        for s, t in pairwise(sigmas):
            found: list[Any] = []
            for a, c in zip(self.A, self.C, strict=True):
                q = 1 / (1 / s + c * (1 / t - 1 / s)) if self.inverse else s + c * (t - s)
                mean = sum(w * d for w, d in zip(a, found, strict=True)) / c if c else 0.0
                found.append((yield q / s * x + (1 - q / s) * mean, q))
            x = t / s * x + (1 - t / s) * sum(b * d for b, d in zip(self.B, found, strict=True))
        return x


def samples(peer: str, name: str, **options: Any) -> dict[str, np.ndarray]:
    """Its golden results with at least these options, by grid and batch."""
    rows = json.loads((GOLDEN / f"zoo_{peer}.json").read_text())["samples"]
    return {
        f"{row['grid']}, batch {row['options'].get('batch')}": np.array(row["result"])
        for row in rows
        if row["name"] == name and options.items() <= row["options"].items()
    }


def langevin_batch() -> None:
    found = samples("score_sde", "pc", predictor="reverse_diffusion", snr=0.16, n_steps=1)
    alone, together = (found[f"exponential 10, zero, batch {n}"] for n in (1, 2))
    print("reverse diffusion + Langevin, snr 0.16, 10 levels, the same noise:")
    print(f"published  sample 0 alone  {alone[0].round(4)}, with another {together[0].round(4)}")
    print("corrected  a step length for each sample: alone and together are the same")


def ddim_uniform() -> None:
    golden = json.loads((GOLDEN / "zoo_comfyui.json").read_text())
    highest = golden["table_ends"][1]
    for row in golden["schedules"]:
        if row["name"] == "ddim_uniform":
            first, steps = row["sigmas"][0], len(row["sigmas"]) - 1
            print(
                f"{row['steps']:>3} steps: {steps} of them, from {first:.3f} (model {highest:.3f})"
            )


def euler_maruyama() -> None:
    """Exactly, for data N(0, 1/4): each step is linear, and a variance follows a recursion."""
    print("standard deviation of samples, where data and last noise have", end=" ")
    print(f"{math.hypot(0.5, exact_ode.SIGMA_MIN):.4f}:")
    for word, lost in (("published", 0), ("corrected", 1)):
        print(f"{word}  dt = 1 / (N - {lost})" if lost else f"{word}  dt = 1 / N      ", end=" ")
        print(*(f"N = {n}: {_deviation(n, 1 / (n - lost)):.4f}" for n in (10, 100, 1000)), sep=", ")


def _deviation(n: int, dt: float) -> float:
    ratio = math.log(exact_ode.SIGMA_MAX / exact_ode.SIGMA_MIN)
    variance = exact_ode.SIGMA_MAX**2
    for t in np.linspace(1, 0, n)[: n if dt * n == 1 else n - 1]:
        sigma2 = (exact_ode.SIGMA_MIN * math.exp(ratio * t)) ** 2
        diffusion = 2 * ratio * sigma2 * dt
        variance = variance * (1 - diffusion / (0.25 + sigma2)) ** 2 + diffusion
    return math.sqrt(variance)


def diffusers(name: str) -> Report:
    def show() -> None:
        import live_diffusers

        getattr(live_diffusers, name)()

    return Report("diffusers", show)


CASES: dict[str, Orders | Report] = {
    "dpm_solver_3": Orders(
        "DPM-Solver, k-diffusion, diffusers, ComfyUI, diff-sampler, skrample",
        [*pair("dpmpp_3m"), *pair("dpmpp_3m_sde", eta=0)],
    ),
    "ipndm_v": Orders(
        "diff-sampler, ComfyUI", [row for k in (3, 4) for row in pair("ipndm_v", order=k)]
    ),
    "reab": Orders("azula", [row for k in (2, 3) for row in pair("reab", order=k)]),
    "heunpp2": Orders("sd-webui-sampler-heunpp, ComfyUI", pair("heunpp2")),
    "er_sde_3": Orders("ER-SDE-Solver, ComfyUI", pair("er_sde", order=3, scaler="ode")),
    "scire": Orders(
        "SciRE-Solver",
        [
            ("published", Ours("scire2", {"m": 3})),
            ("corrected", Ours("scire2", {"m": 1})),
            ("published", Ours("scire3", {"m": 3, "as_published": True})),
            ("corrected", Ours("scire3", {"m": 1})),
        ],
    ),
    "stork": Orders("STORK, sd.next", [*pair("stork2"), *pair("stork4")]),
    "skrample_rk": Orders(
        "skrample", [("published", RungeKutta4(False)), ("corrected", RungeKutta4(True))]
    ),
    "diffusers_edm_3": diffusers("edm_3"),
    "diffusers_pndm_v": diffusers("pndm_v"),
    "diffusers_ddim_linspace": diffusers("ddim_linspace"),
    "comfyui_ddim_uniform": Report("ComfyUI", ddim_uniform),
    "langevin_batch": Report("score_sde", langevin_batch),
    "euler_maruyama": Report("score_sde", euler_maruyama),
}


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in {*CASES, "all"}]
    if unknown:
        print(f"no case {unknown[0]!r}; there are {', '.join(CASES)}, all", file=sys.stderr)
        return 2
    if not names:
        print(*(f"{name:<24} {case.peers}" for name, case in CASES.items()), sep="\n")
    for name in CASES if "all" in names else names:
        print(f"\n{name}: {CASES[name].peers}")
        CASES[name].show()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
