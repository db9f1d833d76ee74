"""What a sampler declares of itself, and how one is found by name."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kdiff.counts import MOST_STEPS, whole_number
from kdiff.names import Found, Registry, UnknownName, made_of_functions, normalise
from kdiff.options import Option, options_of, with_defaults
from kdiff.samplers.contract import Coroutine, Noise
from kdiff.samplers.refused import REFUSED

Final = Literal["zero", "sigma_min"]
NoiseKind = Literal["white", "brownian"]
SdeOrder = float | Callable[[Mapping[str, Any]], float | None] | None
# nfe(steps, final, options): the number of evaluations.
Count = Callable[[int, Final, Mapping[str, Any]], int]

# "DPM++ 2M Karras": what A1111 and its users append to a sampler's name is its schedule.
SCHEDULE_SUFFIXES = (
    *("polyexponential", "exponential", "karras", "vp", "sgm_uniform", "uniform", "kl_optimal"),
    *("align_your_steps", "ays", "gits", "simple", "normal", "beta", "beta57", "laplace"),
    *("linear_quadratic", "ddim_uniform", "bong_tangent", "trailing"),
)
# `k_dpmpp_2m_ka` of A1111, `dpmpp_sde_gpu` of ComfyUI, `Euler SGM` and `Heun FlowMatch` of sd.next
_SUFFIXES: dict[str, str | None] = {
    "": None,
    **{normalise(name): name for name in SCHEDULE_SUFFIXES},
    **{"ka": "karras", "gpu": None, "sgm": "trailing", "flowmatch": None},
}


@dataclass(frozen=True)
class Sampler:
    """A sampler and what it claims; the tests verify the claims.

    `order`: of convergence on the probability-flow ODE (at its `ode` settings), given its options
    (None if it claims none),
    once a multistep method has its history: its first steps are of lower order, which from a
    sigma_max far above the data does not show, and from a low one limits it to 2 (UniPC to 3).
    `calls`: evaluations in a step; `first_calls`: in the first one; a last step to sigma = 0 takes
    just one. `count`: the number of evaluations of a sampler that counts otherwise. `limit`: the
    most evaluations of an adaptive sampler, whose number is not known before it has run; None for
    all others.
    `strong` and `weak`: the orders at which the paths, and the moments, of a sampler that draws
    noise converge to those of its SDE, given its options; None if it stands for no SDE.
    `keeps_marginals`: whether what a sampler that draws noise makes is, with ever more steps,
    distributed as the model's data are.
    `student`: it asks for the end of the ODE from x, which few-step students of a model predict,
    instead of the denoised.
    `linear`: its result is a linear combination of the start, the answers and the noises, so that
    it can be traced. `noise`: the kind of noise it draws, or None; `ode`: the settings at which it
    draws none, None if there are no such settings.
    """

    name: str
    function: Callable[..., Coroutine]
    order: Callable[[Mapping[str, Any]], int | None]
    paper: str
    calls: int = 1
    first_calls: int = 1
    count: Count | None = None
    limit: int | None = None
    strong: SdeOrder = None
    weak: SdeOrder = None
    keeps_marginals: bool = True
    student: bool = False
    linear: bool = True
    noise: NoiseKind | None = None
    ode: Mapping[str, Any] | None = field(default_factory=dict)
    aliases: Sequence[str] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)

    def with_defaults(self, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All options, checked: UnknownName or ValueError says what is wrong."""
        return with_defaults(self.name, self.options, options)

    def stochastic(self, options: Mapping[str, Any] | None = None) -> bool:
        """Whether it draws noise with these options."""
        full = self.with_defaults(options)
        if self.noise is None:
            return False
        return not self.ode or any(full[k] != v for k, v in self.ode.items())

    def sde_orders(self, options: Mapping[str, Any]) -> tuple[float | None, float | None]:
        """`strong` and `weak` with these options."""
        strong, weak = (one(options) if callable(one) else one for one in (self.strong, self.weak))
        return strong, weak

    def calls_per_step(self, steps: int, final: Final = "zero") -> list[int]:
        """Evaluations in each of `steps` steps, as `calls` and `first_calls` claim.
        ValueError unless `steps` is a whole number from 1 to a million."""
        steps = whole_number("steps", steps, 1, MOST_STEPS)
        calls = [self.first_calls, *[self.calls] * (steps - 1)]
        if final == "zero":
            calls[-1] = 1
        return calls

    def nfe(
        self, steps: int, final: Final = "zero", options: Mapping[str, Any] | None = None
    ) -> int | None:
        """The number of function evaluations, exactly, of `steps` >= 1 steps; None if the sampler
        is adaptive. Errors as `calls_per_step`."""
        steps = whole_number("steps", steps, 1, MOST_STEPS)
        if self.limit is not None:
            return None
        if self.count is not None:
            return self.count(steps, final, self.with_defaults(options))
        return sum(self.calls_per_step(steps, final))

    def steps(
        self, nfe: int, final: Final = "zero", options: Mapping[str, Any] | None = None
    ) -> int:
        """The most steps that `nfe` evaluations pay for. ValueError if not even one, or if the
        sampler is adaptive."""
        if self.limit is not None:
            raise ValueError(f"{self.name} is adaptive: it takes no fixed nfe; give steps")

        def paid(steps: int) -> int:
            return self.nfe(steps, final, options) or 0

        nfe = whole_number(f"nfe of {self.name}", nfe, paid(1), MOST_STEPS)
        return bisect_right(range(1, nfe + 1), nfe, key=paid)

    def start(
        self,
        x: Any,
        sigmas: Sequence[float],
        noise: Noise | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Coroutine:
        """The coroutine, for a `Walk`: `x` at noise level sigmas[0], on decreasing sigmas; or, at
        its `ode` settings, on rising ones that start above 0."""
        keywords = self.with_defaults(options)
        if self.noise is not None:
            keywords["noise"] = noise
        return self.function(x, sigmas, **keywords)

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        """A registered sampler is pickled by its name, whatever its functions are made of."""
        if REGISTRY.get(self.name) is self:
            return _registered, (self.name,)
        return super().__reduce_ex__(protocol)


REGISTRY: Registry[Sampler] = Registry(
    "sampler", "kdiff.samplers", made_of_functions(Sampler), REFUSED
)
_BY_CALLS: Any = object()


def sampler(
    name: str,
    *,
    order: int | Callable[[Mapping[str, Any]], int | None],
    paper: str,
    nfe: Count | None = _BY_CALLS,
    limit: int | None = None,
    **declared: Any,
) -> Callable[[Callable[..., Coroutine]], Callable[..., Coroutine]]:
    """Register the coroutine below under `name`; its keyword-only arguments become its options.

    The number of evaluations is what `calls` and `first_calls` say, or `nfe(steps, final, options)`
    if that is given, or unknown before the run: `nfe=None`, with a `limit`. All else as in
    `Sampler`. ValueError for a `limit` without `nfe=None`, or the other way round.
    """
    if (nfe is None) != (limit is not None):
        raise ValueError(f"{name}: nfe=None, for an adaptive sampler, goes with a limit")

    def register(function: Callable[..., Coroutine]) -> Callable[..., Coroutine]:
        REGISTRY[name] = Sampler(
            name,
            function,
            order if callable(order) else lambda options: order,
            paper,
            count=None if nfe is _BY_CALLS else nfe,
            limit=limit,
            options=options_of(function, given={"noise"}),
            **declared,
        )
        return function

    return register


def _registered(name: str) -> Sampler:
    return REGISTRY[name] if name in REGISTRY else REGISTRY.all()[name]


@dataclass(frozen=True)
class Resolved:
    """What a name stands for: a sampler, the options and (or None) the schedule that it implies."""

    sampler: Sampler
    options: Mapping[str, Any]
    schedule: str | None


def resolve(name: str) -> Resolved:
    """Find a sampler by any of its names: `dpmpp_2m`, `DPM++ 2M Karras`, `sample_dpmpp_2m`,
    `DPMSolverMultistepScheduler`, `k_dpmpp_2m_ka`. Case, spaces and punctuation do not count.

    UnknownName, with the nearest names or the reason why it is refused, if there is none.
    """
    wanted = normalise(name)
    if wanted not in REGISTRY.refused:
        for stem in dict.fromkeys((wanted, wanted.removeprefix("k"))):
            for suffix, schedule in _SUFFIXES.items():
                found = _found(stem.removesuffix(suffix)) if stem.endswith(suffix) else None
                if found is not None:
                    return Resolved(found.thing, found.options, schedule)
    raise UnknownName(REGISTRY.unknown(name))


def _found(name: str) -> Found[Sampler] | None:
    try:
        return REGISTRY.find(name)
    except UnknownName:
        return None
