"""SA-Solver: stochastic Adams methods, with a corrector, on an SDE whose noise is tau(sigma)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from kdiff.samplers.coefficients import LOWER
from kdiff.samplers.loops import S_NOISE
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.unipc import half_moments, predict_and_correct

PREDICTOR = Option("how many predictions the predictor combines", 1, 9)
CORRECTOR = Option("how many the corrector does, with the newest; 0: none", 0, 10)
TAU = Option("how much noise: 0 is the ODE, 1 the reverse SDE", 0, 10)
TAU_MIN = Option("add noise only in steps that end at a sigma of at least this", 0)
TAU_MAX = Option("add noise only in steps that end at a sigma of at most this", 0)
SIMPLE = Option("UniPC's bh1 moments where two predictions are combined, as in diffusers")


def steps_of(
    sigmas: Sequence[float], predictor: int, corrector: int, lower: bool
) -> list[tuple[int, int]]:
    """How many predictions the predictor and the corrector combine in each step. With `lower`, the
    last steps have fewer, as in ComfyUI if they go to zero, and as in diffusers if not."""
    zero = sigmas[-1] == 0
    steps = len(sigmas) - 1 - zero
    lowest = [steps - i if lower else steps + 1 for i in range(steps)]
    combined = [
        (min(predictor, i + 1, left), min(corrector, i + 2, left if zero else left + 1))
        for i, left in enumerate(lowest)
    ]
    return [*combined, (1, 0)] if zero else combined


def reached(options: Mapping[str, Any]) -> int:
    p, c = options["predictor_order"], options["corrector_order"]
    order = min(p + 1, c) if c else p
    return min(order, 2) if options["lower_order_final"] else order


def sa_solver(again: bool) -> Callable[..., Coroutine]:
    def solver(
        x: Any,
        sigmas: Sequence[float],
        *,
        noise: Noise,
        predictor_order: Annotated[int, PREDICTOR] = 3,
        corrector_order: Annotated[int, CORRECTOR] = 4,
        tau: Annotated[float, TAU] = 1.0,
        tau_min: Annotated[float, TAU_MIN] = 0.571,
        tau_max: Annotated[float, TAU_MAX] = 5.092,
        s_noise: Annotated[float, S_NOISE] = 1.0,
        simple_order_2: Annotated[bool, SIMPLE] = False,
        lower_order_final: Annotated[bool, LOWER] = True,
    ) -> Coroutine:
        def eta_of(s: float, t: float) -> float:
            return tau * tau if tau_min <= t <= tau_max else 0.0

        moments_of = partial(half_moments, variant="bh1" if simple_order_2 else "vary_coeff")
        combined = steps_of(sigmas, predictor_order, corrector_order, lower_order_final)
        return predict_and_correct(
            x,
            sigmas,
            combined,
            moments_of,
            again=again,
            eta_of=eta_of,
            s_noise=s_noise,
            noise=noise,
        )

    solver.__doc__ = f"""x_t = (t / s)^(1 + tau^2) x_s + sum_i c_i D_i
    + t sqrt(1 - (t / s)^(2 tau^2)) n, c the exact moments of DPM++'s weight with eta = tau^2; a
    predictor from the last D, then a corrector with the D at t and the same n, {ABOUT[again]}."""
    return solver


ABOUT = {
    False: "whose x is not evaluated again (PEC)",
    True: "whose x is evaluated again (PECE, two evaluations a step)",
}
SHARED: dict[str, Any] = {
    "order": reached,
    "paper": "Xue et al. 2023 (SA-Solver), algorithm 1, eq. 14 and 17, on the data prediction",
    "noise": "brownian",
    "ode": {"tau": 0},
}
# The table of Stable Diffusion has sigma 0.571 and 5.092 at 20 and 80 per cent of its timesteps,
# the linear betas of diffusers' default 0.724 and 25.7.
sampler(
    "sa_solver",
    presets={
        "SASolverScheduler": {
            "predictor_order": 2,
            "corrector_order": 2,
            "simple_order_2": True,
            "tau_min": 0.72,
            "tau_max": 25.8,
        }
    },
    **SHARED,
)(sa_solver(again=False))
sampler("sa_solver_pece", nfe=lambda steps, final, options: 2 * steps - 1, **SHARED)(
    sa_solver(again=True)
)
