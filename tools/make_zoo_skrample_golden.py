"""Writes tests/golden/zoo_skrample.json: what skrample's samplers compute on the problem of
tools/golden_problem.py, with alpha = 1. In a throw-away environment with Python 3.12 or later:

    pip install numpy scipy skrample==0.7.0
    python tools/make_zoo_skrample_golden.py

Made with skrample 0.7.0 and numpy 2.4.

Multistep samplers run on the grids with a final zero, where they lower their order; Runge-Kutta
tableaux on those that end at sigma_min, with steps linear in sigma between the levels, so that
`space` "eps" is the tableau in sigma. `space` is its derivative_transform: what is extrapolated, x0
or eps. Noise: `pseudo_noise(s, t)`; the last step's has no weight.
"""

from __future__ import annotations

import numpy as np
from skrample.sampling import functional, interface, models, structured, tableaux
from skrample.scheduling import FixedSchedule, VariancePreserving

import golden_problem as problem

SPACES = {"x0": models.DataModel(), "eps": models.NoiseModel()}
MULTISTEP = {"DPM": 3, "Adams": 5, "UniP": 5, "UniPC": 5}  # to these orders
TABLEAUX = {
    "RK2.Mid": tableaux.RK2.Mid,
    "RK2.Ralston": tableaux.RK2.Ralston,
    "RKE2.Heun": tableaux.RKE2.Heun,
    "RK3.Kutta": tableaux.RK3.Kutta,
    "RK3.Heun": tableaux.RK3.Heun,
    "RK3.Ralston": tableaux.RK3.Ralston,
    "SSP.RK3_3": tableaux.SSP.RK3_3,
    "RKE3.BogackiShampine": tableaux.RKE3.BogackiShampine,
    "RK4.Kutta": tableaux.RK4.Kutta,
    "RK4.Eighth": tableaux.RK4.Eighth,
    "RK4.Ralston": tableaux.RK4.Ralston,
    "RKE5.Fehlberg": tableaux.RKE5.Fehlberg,
    "RKE5.CashKarp": tableaux.RKE5.CashKarp,
    "RKE5.DormandPrince": tableaux.RKE5.DormandPrince,
}


def model(x, timestep: float, sigma: float, alpha: float):
    return problem.denoise(x, sigma)


def schedule(levels) -> FixedSchedule:
    """With alpha = 1 and time = sigma; skrample adds the final (0, 0, 1) itself."""
    points = tuple((float(s), float(s), 1.0) for s in levels)
    return FixedSchedule(points, VariancePreserving())


def solve(sampler, levels, steps: int):
    points = [float(level) for level in levels] + [0.0]

    def noise(step):
        i = round(step.time_from * len(levels))
        return problem.pseudo_noise(points[i], max(points[i + 1], 1e-3))

    return sampler.sample_model(
        problem.start(points[0]),
        model,
        SPACES["x0"],
        schedule(levels),
        len(levels),
        include=slice(0, steps),
        rng=noise,
    )


def multistep(name: str, order: int, space: str, stochasticity: float = 0.0):
    kind = getattr(structured, name)
    return interface.StructuredFunctionalAdapter(
        kind(order=order, derivative_transform=SPACES[space], stochasticity=stochasticity)
    )


def cases() -> list[dict]:
    rows = [
        {"order": order, "space": space, "name": name}
        for name, highest in MULTISTEP.items()
        for order in range(1, highest + 1)
        for space in SPACES
    ]
    rows += [{"order": n, "space": "x0", "name": "UniPC"} for n in (7, 9)]
    for eta in (0.5, 1.0):
        rows += [
            {"order": 1, "space": "x0", "stochasticity": eta, "name": "DPM"},
            {"order": 2, "space": "x0", "stochasticity": eta, "name": "DPM"},
        ]
    return rows


def main() -> None:
    samples = []
    for case in cases():
        options = {key: value for key, value in case.items() if key != "name"}
        for steps in (4, 10):
            levels = problem.GRIDS[f"{steps}, zero"][:-1]
            result = solve(multistep(case["name"], **options), levels, steps)
            entry = {"name": case["name"], "options": options, "grid": f"{steps}, zero"}
            samples.append({**entry, "result": problem.rounded(result)})
    for name, provider in TABLEAUX.items():
        for space in SPACES:
            for steps in (4, 10):
                sampler = functional.RKUltra(
                    order=1, providers={1: provider}, derivative_transform=SPACES[space]
                )
                levels = problem.GRIDS[f"{steps}, sigma_min"]
                entry = {"name": f"RK {name}", "options": {"space": space}}
                result = problem.rounded(solve(sampler, levels, steps))
                samples.append({**entry, "grid": f"{steps}, sigma_min", "result": result})
    tables = {
        name: {
            "c": [stage.c for stage in provider.value.stages],
            "a": [list(stage.a) for stage in provider.value.stages],
            "b": list(provider.value.weights),
        }
        for name, provider in TABLEAUX.items()
    }
    assert np.isfinite([sample["result"] for sample in samples]).all()
    problem.write("skrample", "skrample 0.7.0", samples, [], tableaux=tables)


if __name__ == "__main__":
    main()
