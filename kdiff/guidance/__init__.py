"""Guidance: functions from model to model.

A guidance gets a model, and its options, and returns the guided denoiser, a function of
(x, sigma, **cond):

    @guidance("halved", paper="none")
    def halved(model, *, weight: Annotated[float, Option("of D", 0, 1)] = 0.5):
        return lambda x, sigma, **cond: weight * model(x, sigma, **cond)

What stands in the function's place makes a model of a model: `halved(model, 0.5)`. A guidance has
no state: what depends on earlier calls, or draws noise, is an edit (`kdiff.editing`). It does not
write into `x`, and gets answers through `model`, `pair` (c and u in one call) and `unguided(model)`
(the model inside all guidance, which computes equal answers once in a call).
"""

# isort: off
from kdiff.conditions import Step
from kdiff.guidance.answers import also_without_class, answers, empty, pair, without
from kdiff.guidance.registry import (
    GUIDANCE,
    Guided,
    Guidance,
    check_null_class,
    guidance,
    guide,
    guided,
    suited,
    unguided,
)

# These register theirs, in the order in which `kdiff list guidance` shows them.
from kdiff.guidance.classifier_free import cfg, ho_salimans
from kdiff.guidance.classifier import classifier, classifier_mean_shift
from kdiff.guidance.loss import loss
# isort: on

__all__ = [
    "GUIDANCE",
    "Guidance",
    "Guided",
    "Step",
    "also_without_class",
    "answers",
    "cfg",
    "check_null_class",
    "classifier",
    "classifier_mean_shift",
    "empty",
    "guidance",
    "guide",
    "guided",
    "ho_salimans",
    "loss",
    "pair",
    "suited",
    "unguided",
    "without",
]
