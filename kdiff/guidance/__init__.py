"""Guidance: functions from model to model.

A guidance gets a model, and its options, and returns the guided denoiser, a function of
(x, sigma, **cond):

    @guidance("halved", paper="none")
    def halved(model, *, weight: Annotated[float, Option("of D", 0, 1)] = 0.5):
        return lambda x, sigma, **cond: weight * model(x, sigma, **cond)

It has no state: what depends on earlier calls, or draws noise, is an edit (`kdiff.editing`).
"""

# isort: off
from kdiff.guidance.registry import (
    GUIDANCE,
    Guided,
    Guidance,
    check_null_class,
    guidance,
    guide,
    guided,
)

# These register theirs, in the order in which `kdiff list guidance` shows them.
import kdiff.guidance.classifier_free  # noqa: F401
# isort: on

__all__ = ["GUIDANCE", "Guidance", "Guided", "check_null_class", "guidance", "guide", "guided"]
