"""Guidance: functions from model to model.

A guidance gets a model, and its options, and returns the guided denoiser, a function of
(x, sigma, **cond):

    @guidance("halved", paper="none")
    def halved(model, *, weight: Annotated[float, Option("of D", 0, 1)] = 0.5):
        return lambda x, sigma, **cond: weight * model(x, sigma, **cond)

What stands in the function's place makes a model of a model: `halved(model, 0.5)`. A guidance has
no state: what depends on earlier calls, or draws noise, is an edit (`kdiff.editing`). It does not
write into `x`. It gets answers from

- `model`;
- `pair(model, x, sigma, cond)`: c and u in one call of the network;
- `answers(model, x, sigma, cond, other, ..)`: under any conditions, in one call. `without(cond)`
  are those of u, and `empty(cond)` those of nothing, also where there is a negative class or prompt
  (`kdiff.conditions` says how these are named);
- `unguided(model)`: the model inside all guidance, which computes equal answers once in a call.

If it asks for more than `model` answers, it says so: `asks=also_without_class`, for example (see
`Guidance`, which also says how it is told the step of a run).
"""

# isort: off
from kdiff.conditions import Step
from kdiff.guidance.asking import also_without_class, answers, empty, pair, without
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
from kdiff.guidance.limited_interval import interval
from kdiff.guidance.rescaling import rescale
from kdiff.guidance.worse_model import autoguidance
from kdiff.guidance.cfg_plus_plus import cfg_pp
from kdiff.guidance.projected import apg
from kdiff.guidance.zero_star import cfg_zero
from kdiff.guidance.tangential import tcfg
from kdiff.guidance.frequencies import fdg
from kdiff.guidance.magnitude import magnitude_aware
from kdiff.guidance.perpendicular import perp_neg
from kdiff.guidance.mimic_scale import mimic
from kdiff.guidance.skip_layers import slg
from kdiff.guidance.perturbed_attention import pag
from kdiff.guidance.smoothed_energy import seg
from kdiff.guidance.classifier_gradient import classifier, classifier_mean_shift
from kdiff.guidance.loss_gradient import loss
from kdiff.guidance.thresholding import dynamic_threshold, threshold
from kdiff.guidance.epsilon_scaling import eps_scaling
# isort: on

__all__ = [
    "GUIDANCE",
    "Guidance",
    "Guided",
    "Step",
    "also_without_class",
    "answers",
    "apg",
    "autoguidance",
    "cfg",
    "cfg_pp",
    "cfg_zero",
    "check_null_class",
    "classifier",
    "classifier_mean_shift",
    "dynamic_threshold",
    "empty",
    "eps_scaling",
    "fdg",
    "guidance",
    "guide",
    "guided",
    "ho_salimans",
    "interval",
    "loss",
    "magnitude_aware",
    "mimic",
    "pag",
    "pair",
    "perp_neg",
    "rescale",
    "seg",
    "slg",
    "suited",
    "tcfg",
    "threshold",
    "unguided",
    "without",
]
