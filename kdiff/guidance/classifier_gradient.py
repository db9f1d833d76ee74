"""Classifier guidance (Dhariwal & Nichol 2021), with any classifier of noisy images.

With x = x0 + sigma n, Tweedie's formula is D(x; sigma) = x + sigma^2 grad_x log p(x; sigma), and
Bayes' rule log p(x | y) = log p(x) + log p(y | x) + const. So the denoiser of class y is

    D(x | y; sigma) = D(x; sigma) + sigma^2 grad_x log p(y | x; sigma).

The paper has x' = x / sqrt(1 + sigma^2) in the variance-preserving frame, with sqrt(1 - abar) =
sigma / sqrt(1 + sigma^2), and eps' = eps - w sqrt(1 - abar) grad_x' log p(y | x') (algorithm 2). As
grad_x' = sqrt(1 + sigma^2) grad_x, this is eps - w sigma grad_x log p, and D = x - sigma eps is the
formula above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from kdiff.conditions import LABELS, STEP, Step
from kdiff.guidance.asking import empty, only_of_nothing
from kdiff.guidance.gradients import gradient
from kdiff.guidance.registry import guidance
from kdiff.messages import Unusable
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

    from kdiff.classifiers.classifier import NoisyClassifier
    from kdiff.plans import Plan

Scale = Annotated[float, Option("w: 0 is no guidance", -1000, 1000)]
Which = Annotated[
    object, Option("the noisy-image classifier: a name, a file, module:function or a function")
]
Conditional = Annotated[
    bool, Option("whether the model, if it has classes, is told the class as well")
]


def load(what: Any) -> NoisyClassifier:
    from kdiff.classifiers import load_classifier  # which imports torch

    return load_classifier(what)


def asks(
    inner: frozenset[str], sigma: float, *, conditional: bool, **options: Any
) -> frozenset[str]:
    return inner if conditional else only_of_nothing(inner)


def asks_without_class(*, conditional: bool, **options: Any) -> bool:
    return not conditional


@guidance(
    "classifier",
    paper="Dhariwal & Nichol 2021 (Diffusion Models Beat GANs), algorithm 2, on D",
    asks=asks,
    needs_null_class=asks_without_class,
    loads={"classifier": load},
)
def classifier(
    model: Model,
    *,
    scale: Scale = 1.0,
    classifier: Which = "cifar10-noisy",
    conditional: Conditional = True,
) -> Denoise:
    """D + w sigma^2 grad_x log p(y | x; sigma), with w the `scale` and p of the `classifier`.

    For a model without the class and w = 1 this is D of the class. If the model is told the class
    too, w = 0 is already that, and w sharpens it, as the paper does with its conditional models.
    guided-diffusion has w = 1 for images of 64 and 256 pixels, 0.5 for 128 and 4 for 512, and 10
    for its unconditional model.
    Samples of no class (-1) are not guided. ValueError for a classifier of other classes or of
    another image shape than the model's.
    """
    return _guided(model, classifier, scale, conditional, lambda sigma, step: sigma**2)


def refuses(plan: Plan, **options: Any) -> str | None:
    small = plan.options.get("eta") == 1 and plan.options.get("variance") != "learned"
    if plan.sampler.name in ("ddim", "euler_ancestral") and small:
        return None
    return (
        "is the mean shift of DDPM's steps: sample with euler_ancestral or ddim and eta=1, or take "
        "the guidance classifier, which suits every sampler"
    )


@guidance(
    "classifier_mean_shift",
    paper="Dhariwal & Nichol 2021 (Diffusion Models Beat GANs), algorithm 1, on D",
    asks=asks,
    needs_null_class=asks_without_class,
    knows_step=True,
    refuses=refuses,
    loads={"classifier": load},
)
def classifier_mean_shift(
    model: Model,
    *,
    scale: Scale = 1.0,
    classifier: Which = "cifar10-noisy",
    conditional: Conditional = True,
) -> Denoise:
    """D + w t^2 grad_x log p(y | x; s) in a step from s to t, all else as in `classifier`.

    DDPM's step has the mean (t^2 / s^2) x + (1 - t^2 / s^2) D and the variance
    v = t^2 (s^2 - t^2) / s^2. The paper shifts the mean by w v grad_x log p. That is D shifted by
    w v / (1 - t^2 / s^2) = w t^2: less than by the formula of ODEs, and nothing in the last step.
    """
    return _guided(model, classifier, scale, conditional, lambda sigma, step: step.t**2)


def _guided(model: Model, classifier: Any, scale: float, conditional: bool, factor: Any) -> Denoise:
    check_fits(model, classifier)

    def denoise(x: Tensor, sigma: float, step: Step | None = None, **cond: Any) -> Tensor:
        labels = _labels(x, cond)
        own = {**cond, **({} if step is None else {STEP: step})}
        if not model.classes:
            own.pop(LABELS)
        elif not conditional:
            own = empty(own)
        d = model(x, sigma, **own)
        if scale == 0:
            return d
        return d + scale * factor(sigma, step) * log_gradient(classifier, x, sigma, labels)

    return denoise


def log_gradient(classifier: NoisyClassifier, x: Tensor, sigma: float, labels: Tensor) -> Tensor:
    """grad_x log p(y | x; sigma) `[N, *shape]`, zero where the label is -1. ValueError if the
    classifier's answer is not `[N, classes]`, or cannot be differentiated."""
    import torch

    def log_p(x: Tensor) -> tuple[Tensor, None]:
        logits = classifier(x, sigma)
        if not isinstance(logits, torch.Tensor) or logits.shape[:1] != x.shape[:1]:
            raise ValueError("its answer is not a tensor of logits [N, classes]")
        if logits.ndim != 2:
            raise ValueError(f"its logits must be [N, classes], not {list(logits.shape)}")
        if labels.device.type == "cpu" and int(labels.max()) >= logits.shape[1]:
            raise ValueError(f"it has {logits.shape[1]} classes, so no class {int(labels.max())}")
        chosen = logits.log_softmax(1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
        return torch.where(labels < 0, 0, chosen), None

    try:
        return gradient(log_p, x)[0]
    except ValueError as error:
        raise Unusable(f"the classifier {classifier.name}: {error}") from error


def check_fits(model: Model, classifier: NoisyClassifier) -> None:
    """ValueError if they do not have the same image shape, or the same classes, as far as both say
    them. Names that are numbers are not names."""
    shapes = [one.shape for one in (model, classifier)]
    if all(shape is not None for shape in shapes) and len({tuple(s) for s in shapes if s}) > 1:
        mine, theirs = (" x ".join(map(str, shape or ())) for shape in shapes)
        raise ValueError(
            f"the classifier {classifier.name} is for images of {theirs}, not {mine} as of "
            f"{model.name}: give classifier= one for these"
        )
    own, other = tuple(model.classes), tuple(classifier.classes)
    differ = own and other and len(own) != len(other)
    named = _has_names(own) and _has_names(other)
    if differ or (named and [a.lower() for a in own] != [b.lower() for b in other]):
        raise ValueError(
            f"the classifier {classifier.name} has other classes ({_few(other)}) than "
            f"{model.name} ({_few(own)}): give classifier= one for these"
        )


def _has_names(classes: Sequence[str]) -> bool:
    return bool(classes) and list(classes) != [str(i) for i in range(len(classes))]


def _few(classes: Sequence[str]) -> str:
    return f"{len(classes)}: {', '.join(classes[:3])}{', ..' if len(classes) > 3 else ''}"


def _labels(x: Tensor, cond: dict[str, Any]) -> Tensor:
    import torch

    labels = cond.get(LABELS)
    if labels is None:
        raise Unusable("classifier guidance needs class_labels")
    if not isinstance(labels, torch.Tensor) or labels.shape != x.shape[:1]:
        raise ValueError("classifier guidance needs class_labels as whole numbers, one a sample")
    return labels.long()
