"""`kdiff.sample`: seeds to samples, in batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdiff.conditions import LABELS, NEGATIVE, Conditions, chosen, conditions, negatives, part
from kdiff.counts import seed_number, sizes, whole_number
from kdiff.driver import Isolated, State, drive, isolated
from kdiff.guidance import Guided, guided
from kdiff.latent import check_takes_prompts
from kdiff.model import Wrapper, as_model
from kdiff.modifications import Modification
from kdiff.noise import Noise
from kdiff.plans import DEFAULT_SAMPLER, Plan
from kdiff.plans import plan as make_plan
from kdiff.text.rows import as_texts

MOST_SAMPLES = 10**9
FIXED_BATCH = 16  # the one batch shape of `deterministic`


def sample(
    model: Any,
    sampler: str = DEFAULT_SAMPLER,
    *,
    n: int | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | None = None,
    batch: int = 64,
    shape: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
    callback: Callable[[State], None] | None = None,
    cond: Mapping[str, Any] | None = None,
    class_labels: Sequence[int] | Tensor | None = None,
    prompt: str | Sequence[str] | None = None,
    negative_prompt: str | Sequence[str] | None = None,
    guide: str | Modification | Sequence[str | Modification] = (),
    start: Tensor | None = None,
    **planned: Any,
) -> Tensor:
    """`n` samples `[n, *model.shape]` from `model`, a `Denoiser` or any callable like one.

    Seeds are `seeds`, or `n` (default 1, or one a prompt) of them from `seed` (default 0) on: each
    determines its sample, whatever `batch` it is computed in (to the network's rounding; to the bit
    if `deterministic`, which gives the network one fixed batch shape). A seed may come twice: it
    then starts from the same noise, and differs only by its class or `cond`. `device` and `shape`
    are by default the model's, if it says them, and else the CPU. `dtype` is the solver's; the
    network keeps its own. `class_labels`, and the arrays and lists in `cond`, have one row a
    sample; an array for all of them is given as `kdiff.Shared(array)`. `prompt` is one text, or one
    for each sample, for a model that takes prompts, and `negative_prompt` what guidance leads away
    from (`model.encode` makes conditions of them, and `model.resized` sets the size). `guide`, such
    as `cfg:scale=2`, or a list of these, guides the model (`kdiff.guide`). `callback` gets each
    `State`. `start` has the samples at the first sigma, in the order of the seeds, to begin from
    in place of the seeds' noise: `kdiff.invert` makes such. All else (`steps`, `nfe`, `schedule`,
    `options`, `edits`, ..) as in `plan`.
    ValueError on bad arguments, NonFiniteError if the model breaks down.
    """
    if class_labels is not None and (cond or {}).get("class_labels") is not None:
        raise ValueError("give class_labels once, not in cond as well")
    usual = len(prompt) if isinstance(prompt, list | tuple) else 1
    _check_start(start)
    usual = usual if start is None else len(start)
    count = usual if n is None else whole_number("n", n, 1, MOST_SAMPLES)
    if seed is not None and seeds is not None:
        raise ValueError("give only one of seed and seeds")
    first = 0 if seed is None else seed_number(seed)
    seeds = range(first, first + count) if seeds is None else _listed(seeds)
    if n is not None and count != len(seeds):
        raise ValueError(f"n = {count}, but there are {len(seeds)} seeds")
    if class_labels is not None:
        cond = {**(cond or {}), "class_labels": class_labels}
    model = guided(model, [guide] if isinstance(guide, str | Modification) else guide)
    if prompt is not None or negative_prompt is not None:
        cond = {**_prompted(model, prompt, negative_prompt, len(seeds), shape), **(cond or {})}
    plan = make_plan(model, sampler, **planned)
    unused = None if plan.edits or isinstance(model, Guided) else negatives(cond or {})
    if unused:
        raise ValueError(f"{unused[0]} has no effect without guidance: give guide, such as cfg")
    results = []
    for _, states in run(
        model,
        plan,
        seeds,
        batch=batch,
        shape=shape,
        device=device,
        dtype=dtype,
        deterministic=deterministic,
        cond=cond,
        start=start,
    ):
        for state in states:
            if callback is not None:
                callback(state)
        results.append(state.x)
    return torch.cat(results)


def _prompted(
    model: Any, prompt: Any, negative: Any, n: int, shape: Sequence[int] | None
) -> Conditions:
    if prompt is None:
        raise ValueError("negative_prompt is what guidance leads away from: give prompt too")
    check_takes_prompts(model)
    if shape is not None:
        raise ValueError("give the size by model.resized(width=, height=), not shape")
    return model.encode(as_texts("prompt", prompt, n), negative)


def run(
    model: Any,
    plan: Plan,
    seeds: Sequence[int],
    *,
    batch: int = 64,
    shape: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
    cond: Mapping[str, Any] | None = None,
    start: Tensor | None = None,
) -> Iterator[tuple[Sequence[int], Iterator[State]]]:
    """What `sample` does, batch by batch: the seeds of each, and its states to iterate over.
    The last state of a batch has its samples. Errors as in `sample`."""
    shape = _shape_of(start, len(seeds), model, shape)
    done = 0
    for some in batches(model, seeds, batch, shape, dtype, deterministic, cond, device):
        noise = some.noise()
        if start is None:
            x = some.start(plan.sigmas[0], noise)
        else:
            x = some.placed(start[done : done + len(some.seeds)].to(noise.device, dtype))
        done += len(some.seeds)
        yield some.seeds, drive(some.denoise, plan, x, noise, **some.cond)


def _shape_of(
    start: Tensor | None, n: int, model: Any, shape: Sequence[int] | None
) -> Sequence[int] | None:
    """The shape of a sample, from `start` if that is given: ValueError unless it fits all else."""
    if start is None:
        return shape
    _check_start(start)
    known = getattr(model, "shape", None) if shape is None else shape
    expected = (n, *(start.shape[1:] if known is None else known))
    if tuple(start.shape) != tuple(expected):
        raise ValueError(f"start must be {expected}, a row for each seed, not {tuple(start.shape)}")
    return start.shape[1:]


def _check_start(start: Any) -> None:
    if start is None:
        return
    if not isinstance(start, Tensor) or not start.is_floating_point() or not start.ndim:
        raise ValueError("start must be a tensor of a floating-point dtype, a row for each sample")
    if not start.isfinite().all():
        raise ValueError("start must be finite")


class Batch(NamedTuple):
    """Seeds that are computed together, and all else that they are computed from."""

    seeds: Sequence[int]
    denoise: Isolated
    cond: Conditions
    noise: Callable[[], Noise]
    memory_format: torch.memory_format

    def start(self, sigma: float, noise: Noise) -> Tensor:
        """Where plans that begin at noise level `sigma` start."""
        return self.placed(sigma * noise.initial())

    def placed(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self.memory_format)


def batches(
    model: Any,
    seeds: Sequence[int],
    batch: int = 64,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
    cond: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
) -> Iterator[Batch]:
    """The seeds in batches, with what belongs to each. Arguments and errors as in `sample`."""
    if len(seeds) < 1:
        raise ValueError("nothing to sample: give at least one image or seed")
    seeds, model = _check_seeds(seeds), as_model(model)
    batch = min(whole_number("batch", batch, 1), len(seeds))
    device = model.device if device is None else device
    shape = model.shape if shape is None else shape
    if shape is None:
        raise ValueError("the model does not say its shape: give shape")
    shape = sizes(shape)
    rows = conditions(cond or {}, len(seeds), device)
    for labels in (LABELS, NEGATIVE + LABELS):
        check_labels(rows.get(labels), len(model.classes), labels)
    denoise = isolated(FixedBatch(isolated(model)) if deterministic else model)
    _warn_of_training(model)
    for start in range(0, len(seeds), batch):
        some = slice(start, start + batch)
        noise = partial(Noise, seeds[some], shape, dtype, device)
        yield Batch(seeds[some], denoise, part(rows, some), noise, model.memory_format)


def _warn_of_training(model: Any) -> None:
    network = getattr(model, "network", getattr(model, "f", model))
    if isinstance(network, nn.Module) and any(part.training for part in network.modules()):
        warnings.warn(
            "the network is in training mode, with dropout and such: call its eval() to sample",
            stacklevel=4,
        )


def _listed(seeds: Any) -> list[Any]:
    try:
        return list(seeds)
    except TypeError:
        raise ValueError(f"seeds must be a list of whole numbers, not {seeds!r:.80}") from None


def _check_seeds(seeds: Sequence[int]) -> Sequence[int]:
    """As Python ints, before anything is computed from the first of them."""
    if isinstance(seeds, range):
        seed_number(seeds[0]), seed_number(seeds[-1])
        return seeds
    return [seed_number(seed) for seed in seeds]


def check_labels(labels: Tensor | None, classes: int, name: str = LABELS) -> None:
    """ValueError unless whole numbers from -1, the null class, to `classes` - 1 (0: unknown)."""
    if labels is None or labels.ndim > 1:  # rows may be one-hot or embeddings
        return
    whole = labels.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if not whole or (classes and (labels.min() < -1 or labels.max() >= classes)):
        last = f" to {classes - 1}" if classes else ""
        raise ValueError(f"{name} must be whole numbers from -1 (none){last}")


class FixedBatch(Wrapper):
    """A denoiser in calls of exactly `size` samples, the last one padded with copies. A network's
    rounding depends on the shape of its batch; so with one shape, no sample depends on which
    others, or how many, are computed with it."""

    def __init__(self, denoise: Isolated, size: int = FIXED_BATCH):
        super().__init__(denoise)
        self.size = size

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        parts = []
        for start in range(0, len(x), self.size):
            rows = [min(i, len(x) - 1) for i in range(start, start + self.size)]
            some = x[start : start + self.size]
            copies = some[-1:].expand(self.size - len(some), *x.shape[1:])
            padded = torch.cat([some, copies])  # keeps the memory format, as indexing does not
            parts.append(self.model(padded, sigma, **chosen(cond, rows)))
        return torch.cat(parts)[: len(x)]
