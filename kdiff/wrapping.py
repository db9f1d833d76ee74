"""`kdiff.wrap`: any module or function as a `Denoiser`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdiff.counts import whole_number
from kdiff.denoiser import Denoiser
from kdiff.preconditioners import precond

_MOST_CLASSES = 1_000_000


def wrap(
    f: nn.Module | Callable[..., Any],
    prediction: str = "eps",
    *,
    shape: Sequence[int],
    betas: Sequence[float] | Tensor | None = None,
    classes: Sequence[str] | int = (),
    labels: str | None = "class_labels",
    one_hot: bool = False,
    null_class: int | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    learned_variance: bool | None = None,
    name: str = "wrapped",
    **settings: Any,
) -> Denoiser:
    """The `Denoiser` of a network `f(x, t, **cond)`: `x` `[N, *shape]`, `t` `[N]`.

    | prediction  | f sees                         | f answers              | t                |
    |-------------|--------------------------------|------------------------|------------------|
    | `eps`       | sqrt(a_t) x0 + sqrt(1 - a_t) n | n                      | timestep 0 .. T-1|
    | `v`         | the same                       | sqrt(a_t) n - sqrt(1 - a_t) x0 | same     |
    | `x0`        | the same                       | x0                     | the same         |
    | `flow`      | (1 - t) x0 + t n               | n - x0                 | `time_scale` t   |
    | `denoised`  | x0 + sigma n                   | x0                     | sigma            |
    | `edm`       | c_in (x0 + sigma n)            | F of EDM, eq. 7        | ln(sigma) / 4    |
    | `vp`, `ve`, `iddpm`: as in Karras et al. 2022, table 1                                     |

    `settings`: as in `kdiff.precond(prediction)`. For eps, v and x0: `alphas_cumprod`, a list or
    `linear` (the default), `scaled_linear`, `cosine` with `steps`, `start`, `end`; or `betas`, a
    list, instead; `round=True` gives `t` as whole numbers, int64, for networks that look it up in
    a table. For flow: `data_at=1` if t = 1 is the data and f answers x0 - n. For edm: `sigma_data`.
    `sigma_min` and `sigma_max`: where schedules begin and end, if not at the prediction's own.

    `classes` is their names or their number; f gets them under the keyword `labels` (None: as its
    third argument), as integers `[N]` or as `one_hot` float rows. -1, no class, becomes
    `null_class` (a row of zeros); without one, -1 is a ValueError. If labels are left out, all are
    of no class; without a `null_class`, f is then called without them.
    f may answer with a tensor, an object with `.sample` (diffusers), or a tuple that starts with
    one. `learned_variance`: whether it answers with twice the channels (axis 1), of which the
    second half is for samplers that ask for it; by default its first answer decides. Its memory
    format is left alone.
    ValueError or TypeError on settings that make no sense.
    """
    if not callable(f):
        raise TypeError(f"f must be a module or a function, not {f!r:.80}")
    if betas is not None:
        if "alphas_cumprod" in settings:
            raise ValueError("give betas or alphas_cumprod, not both")
        settings["alphas_cumprod"] = _kept(betas)
    names = _names(classes)
    if null_class is not None:
        null_class = whole_number("null_class", null_class, -1, 2**63 - 1)
    if one_hot and not names:
        raise ValueError("one_hot needs classes: their names or their number")
    network = Adapter(
        f,
        labels=labels,
        one_hot=len(names) if one_hot else 0,
        null_class=null_class,
        whole_timesteps=bool(settings.get("round", False)),
    )
    return Denoiser(
        network,
        precond(prediction, **settings),
        shape=shape,
        classes=names,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        name=name,
        facts={"parameterisation": f"{prediction}, as told"},
        channels_last=False,
        learned_variance=learned_variance,
    )


def _kept(betas: Sequence[float] | Tensor) -> list[float]:
    try:
        return (1 - torch.as_tensor(betas, dtype=torch.float64)).cumprod(0).tolist()
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise ValueError(f"betas must be a list of numbers, not {betas!r:.80}") from None


def _names(classes: Sequence[str] | int) -> tuple[str, ...]:
    if not isinstance(classes, Sequence):
        return tuple(map(str, range(whole_number("classes", classes, 0, _MOST_CLASSES))))
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes must be a list of names or their number, not {classes!r}")
    return tuple(classes)


class Adapter(nn.Module):
    """Calls `f` in its own way: see `wrap`. A module, so that `f`, if it is one, moves with it."""

    def __init__(
        self,
        f: Callable[..., Any],
        *,
        labels: str | None,
        one_hot: int,
        null_class: int | None,
        whole_timesteps: bool,
    ):
        super().__init__()
        self.f, self.labels, self.one_hot = f, labels, one_hot
        self.null_class, self.whole_timesteps = null_class, whole_timesteps

    @property
    def unconditional(self) -> bool:
        """Whether it takes the null class."""
        return bool(self.one_hot) or self.null_class is not None

    def forward(
        self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None, **cond: Any
    ) -> Tensor:
        t = c_noise.round().long() if self.whole_timesteps else c_noise
        if class_labels is None and (self.one_hot or self.null_class is not None):
            class_labels = torch.full((len(x),), -1, device=x.device)
        if class_labels is None:
            return _tensor(self.f(x, t, **cond))
        labels = self._labels(class_labels, x)
        if self.labels is None:
            return _tensor(self.f(x, t, labels, **cond))
        return _tensor(self.f(x, t, **{self.labels: labels, **cond}))

    def _labels(self, labels: Tensor, x: Tensor) -> Tensor:
        if self.one_hot:  # -1 matches no class
            return (labels[:, None] == torch.arange(self.one_hot, device=labels.device)).to(x.dtype)
        if self.null_class is None:
            _check_classes(labels)
            return labels
        return torch.where(labels < 0, self.null_class, labels)


def _check_classes(labels: Tensor) -> None:
    # On a GPU the network's look-up itself fails: reading labels back would make the host wait.
    plain = labels.ndim == 1 and not labels.is_floating_point()
    if plain and labels.device.type == "cpu" and labels.min() < 0:
        raise ValueError("no null_class was given to kdiff.wrap: class_labels must be 0 or more")


def _tensor(answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    found = getattr(answer, "sample", None)
    if found is None and isinstance(answer, (tuple, list)) and answer:
        found = answer[0]
    if not isinstance(found, Tensor):
        raise ValueError(f"the network answered with {type(answer).__name__}, not a tensor")
    return found
