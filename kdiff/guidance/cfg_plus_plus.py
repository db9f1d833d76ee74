"""CFG++ (Chung et al. 2024): classifier-free guidance that does not change the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kdiff.conditions import STEP, Step
from kdiff.guidance.asking import also_without_class, only_without_class, pair, without
from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

    from kdiff.plans import Plan

# The samplers whose step is Euler's, with these options.
EULER: dict[str, dict[str, Any]] = {
    "euler": {},
    "ddim": {"eta": 0, "variance": "eta"},
    "euler_ancestral": {"eta": 0},
}


def asks(inner: frozenset[str], sigma: float, *, scale: float) -> frozenset[str]:
    return only_without_class(inner) if scale == 0 else also_without_class(inner, sigma)


def refuses(plan: Plan, **options: Any) -> str | None:
    wanted = EULER.get(plan.sampler.name)
    if wanted is None or any(plan.options[key] != value for key, value in wanted.items()):
        return "is right for euler, and for ddim and euler_ancestral with eta=0, only"
    own = () if plan.outline is None else plan.outline.levels
    same = [*(plan.levels or ())] == [*own]
    # Where edits may begin anew, a level that churn has raised does not tell the step.
    if plan.edits and (not same or plan.options.get("S_churn")):
        return "does not go with edits that change the steps, nor with edits and S_churn"
    return None


@guidance(
    "cfg_pp",
    paper="Chung et al. 2024 (CFG++), algorithm 2",
    asks=asks,
    needs_class=True,
    needs_null_class=lambda **options: True,
    knows_step=True,
    refuses=refuses,
    aliases=("cfg_plus_plus",),
)
def cfg_pp(
    model: Model,
    *,
    scale: Annotated[
        float, Option("lambda: 0 is without the class; at most 1 in the paper", -100, 100)
    ] = 0.6,
) -> Denoise:
    """u + w (c - u) with w = lambda / (1 - t / s), in a step from noise level s to t; lambda is the
    `scale`, from 0 to 1 in the paper. The default, 0.6, is the one in the examples of its code.

    The paper's step takes the guided D_lambda = u + lambda (c - u) as the clean image, and the
    noise of u, eps_u = (x - u) / s, as the noise. Divided by the root of alpha bar, its DDIM step
    (algorithm 2) is

        x_t = D_lambda + t eps_u = (t / s) x + (1 - t / s) u + lambda (c - u)

    Euler's step with the answer D gives (t / s) x + (1 - t / s) D. Both are equal if D = u +
    lambda / (1 - t / s) (c - u). In the last step, where t = 0, w is lambda; before, it is larger.
    s is the level at which the sampler asks, which churn has raised.

    It is wrong for samplers whose step is not Euler's, and so refused for them. No value of the
    scale is the model without guidance.
    """

    def denoise(x: Tensor, sigma: float, *, step: Step, **cond: Any) -> Tensor:
        told = {**cond, STEP: step}
        if scale == 0:
            return model(x, sigma, **without(told))
        c, u = pair(model, x, sigma, told)
        return u + scale / (1 - step.t / sigma) * (c - u)

    return denoise
