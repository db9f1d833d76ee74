"""The one model contract: `denoise(x, sigma, **cond) -> x0`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdiff.conditions import VARIANCE, plain
from kdiff.counts import real_number, sizes
from kdiff.networks import classes_of
from kdiff.preconditioners import Precond
from kdiff.preconditioners import precond as make_precond


class Denoiser:
    """A network and its preconditioner: `D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)`.

    `network`, a module (put into evaluation mode, and into channels_last if it has convolutions,
    unless `channels_last=False`) or any function, is called as `network(x, c_noise, **cond)`: `x`
    `[N, *shape]` in the network's dtype, `c_noise` `[N]` in float32 or wider. It answers in the
    shape of `x`, or, with a `learned_variance`, with twice the channels (axis 1), of which the
    second half is for samplers that ask for it. None: the first answer decides. Any other shape is
    a ValueError.
    A model with classes takes `class_labels`, `[N]` integers, -1 for the null class; given to a
    network of kdiff's that has no classes, they are a ValueError.

    Attributes: `shape` of one sample, `classes` (names, or empty), `sigma_min` and `sigma_max`
    (the default range of schedules; if not given, the range of `precond`, whose `sigma_end` then
    counts too), `sigmas` (a discrete model's table, or None), `memory_format` (in which `x` is best
    given), `facts` (what a checkpoint's reader found and how it decided, as text for
    `kdiff inspect`: `format`, `parameterisation`, ..), `data_mean` and `data_std` (of its data, as
    in `kdiff.model_data`, or None). It is a `kdiff.Model`.
    """

    def __init__(
        self,
        network: nn.Module,
        precond: Precond | str,
        *,
        shape: Sequence[int],
        classes: Sequence[str] = (),
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        name: str = "unnamed",
        facts: Mapping[str, str] | None = None,
        channels_last: bool = True,
        learned_variance: bool | None = False,
        data_mean: Any = None,
        data_std: float | None = None,
    ):
        self.data_mean, self.data_std = data_mean, data_std
        self.learned_variance = _yes_or_no(learned_variance)
        self.shape = sizes(shape)
        if learned_variance and not self.shape:
            raise ValueError("samples of shape () have no channels, and so no learned variance")
        if isinstance(network, nn.Module):
            network.eval()
        images = len(self.shape) == 3 and any(p.ndim == 4 for p in _parameters(network))
        self.channels_last = images and channels_last  # convolutions are faster so
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        self.network = network
        self.precond = make_precond(precond) if isinstance(precond, str) else precond
        self.classes = tuple(classes)
        low, high = self.precond.sigma_min, self.precond.sigma_max
        self.sigma_min = low if sigma_min is None else real_number("sigma_min", sigma_min)
        self.sigma_max = high if sigma_max is None else real_number("sigma_max", sigma_max)
        self.sigma_end = self.precond.sigma_end if sigma_max is None else None
        self.sigmas = self.precond.sigmas
        self.name = name
        self.facts = dict(facts or {})
        self.hashed: Callable[[], str] | None = None  # `kdiff.load` knows the files

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        """`x` `[N, *shape]` at noise level `sigma`, one number -> the clean data, as `x`."""
        paired = VARIANCE in cond
        cond, c = plain(cond), self.precond(real_number("sigma", sigma))
        if cond.get("class_labels") is not None:
            _check_takes_labels(self, cond["class_labels"], len(x))
        dtype = self.dtype or x.dtype
        clock = torch.promote_types(dtype, torch.float32)  # bfloat16 cannot tell t = 998 from 999
        c_noise = torch.full((len(x),), c.c_noise, dtype=clock, device=x.device)
        f, *variance = self._parts(self.network((c.c_in * x).to(dtype), c_noise, **cond), x)
        d = c.c_skip * x + c.c_out * f.to(x.dtype)
        if not paired:
            return d
        if not variance:
            raise ValueError(f"{self.name} has no learned variance: choose another variance")
        return torch.stack([d, variance[0].to(x.dtype)], dim=1)

    def _parts(self, f: Tensor, x: Tensor) -> Sequence[Tensor]:
        """The network's answer and, if it has any, its learned variance. ValueError for another
        shape."""
        one = tuple(x.shape)
        two = (*one[:1], *(2 * channels for channels in one[1:2]), *one[2:])
        if self.learned_variance is None and f.shape in (one, two):
            self.learned_variance = f.shape != one
        wanted = two if self.learned_variance else one
        if f.shape == wanted:
            return f.split(one[1], dim=1) if self.learned_variance else (f,)
        hint = "; if half of that is a learned variance, say learned_variance=True"
        message = f"the network must answer with {wanted}, not {tuple(f.shape)}"
        raise ValueError(message + (hint if f.shape == two else ""))

    def decode(self, x: Tensor) -> Tensor:
        """Samples to images in [-1, 1]; `x` itself unless the model makes latents."""
        return x

    def evaluations(self, sigma: float) -> int:
        """Of the network, in one call."""
        return 1

    def record(self) -> dict[str, Any]:
        """What names the model in results: `name`, and `sha256` of its files, None without any."""
        return {"name": self.name, "sha256": None if self.hashed is None else self.hashed()}

    @property
    def unconditional(self) -> bool:
        """Whether it also answers for the null class: unless the network says otherwise."""
        return bool(getattr(self.network, "unconditional", True))

    @property
    def dtype(self) -> torch.dtype | None:
        """The network's dtype; None if it has no parameters (it then gets the dtype of `x`)."""
        return computing_dtype(self.network)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def device(self) -> torch.device:
        return next((p.device for p in _parameters(self.network)), torch.device("cpu"))

    def to(self, device=None, dtype=None) -> Denoiser:
        """Move the network (in place) and return self; solver state keeps its own dtype."""
        if isinstance(self.network, nn.Module):
            self.network.to(device=device, dtype=dtype)
        return self

    def replace(self, precond: Precond | str | None = None, **changes: Any) -> Denoiser:
        """A copy with another `precond`, `shape`, `classes`, `sigma_min`, `sigma_max`, `name`,
        `facts`, `learned_variance`, `data_mean` or `data_std`, which shares the network. A new
        preconditioner brings its own range of sigmas. TypeError on any other keyword."""
        wrong = changes.keys() - {*_TAKEN, *_AS_IT_IS}
        if wrong:
            raise TypeError(f"a Denoiser has no {', '.join(sorted(wrong))} to replace")
        other = copy.copy(self)
        if precond is not None:
            made = make_precond(precond) if isinstance(precond, str) else precond
            other.precond, other.sigmas = made, made.sigmas
            other.sigma_min, other.sigma_max = made.sigma_min, made.sigma_max
            other.sigma_end = made.sigma_end
        if "sigma_max" in changes:
            other.sigma_end = None
        for name in _TAKEN.keys() & changes.keys():
            changes[name] = _TAKEN[name](changes[name])
        vars(other).update({"facts": dict(self.facts), **changes})
        return other

    def compile(self) -> Denoiser:
        """Compile the network (torch.compile, in place, at its first call) and return self."""
        self.network.compile()
        return self


def _yes_or_no(learned_variance: Any) -> bool | None:
    if not isinstance(learned_variance, bool | None):
        said = f"{learned_variance!r:.80}"
        raise ValueError(f"learned_variance must be True, False or None, not {said}")
    return learned_variance


_AS_IT_IS = ("sigma_min", "sigma_max", "name", "facts", "data_mean", "data_std")
_TAKEN: Mapping[str, Callable[[Any], Any]] = {
    "shape": sizes,
    "classes": tuple,
    "learned_variance": _yes_or_no,
}


def _check_takes_labels(model: Denoiser, labels: Any, n: int) -> None:
    """ValueError if the network is one of kdiff's, without classes: it would ignore labels. Or if
    there is not one for each of `n`: a single one would be spread over all."""
    if not model.classes and classes_of(model.network) == 0:
        raise ValueError(f"{model.name} has no classes: leave out class_labels")
    if not isinstance(labels, Tensor) or labels.ndim == 0 or len(labels) != n:
        raise ValueError(f"class_labels must have one row for each of the {n} samples")


def computing_dtype(network: Any) -> torch.dtype | None:
    """The dtype of the first parameter that is computed with: quantised ones, which are whole
    numbers or of one byte, do not count. None if there is none."""
    dtypes = (p.dtype for p in _parameters(network))
    return next((d for d in dtypes if d.is_floating_point and d.itemsize > 1), None)


def _parameters(network: Any) -> Iterator[nn.Parameter]:
    return network.parameters() if isinstance(network, nn.Module) else iter(())
