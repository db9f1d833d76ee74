"""The conversation between a sampler and what drives it.

A sampler is a coroutine. It asks for the denoised of `x` at noise level `sigma`, gets it as the
value of its `yield`, and returns the sample:

    d = yield x, sigma

Where it asks several things at once it yields a list, and gets a list. What else an ask can say is
in `Ask`. `Walk` is the other side: drivers answer through it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

MOST_EMPTY = 10_000  # lists of no asks, one after the other
# It yields an Ask, a tuple that begins like one, or a list of either; and is sent D, or a list.
Coroutine = Generator[Any, Any, Any]


class Variance:
    """Where a sampler finds what the network has learned of its noise, once its ask is answered:

        learned = Variance()
        d = yield Ask(x, sigma, variance=learned)
        use(learned.v)

    `v` is the second half of what an iDDPM network answers, as it is, in the shape of D. If the
    ask is answered several times, by an edit that guides for example, the first answer counts.
    ValueError if whoever answered the ask gave none.
    """

    def __init__(self) -> None:
        self._v: Any = None

    def fill(self, v: Any) -> None:
        """For those that answer."""
        if self._v is None:
            self._v = v

    @property
    def v(self) -> Any:
        if self._v is None:
            raise ValueError(
                "a learned variance is asked for, and what answers gives none: choose another "
                "variance"
            )
        return self._v


class Ask(NamedTuple):
    """One question: D(x; sigma).

    `rows`: which samples of the batch `x` holds, all if None: samplers whose steps differ from
    sample to sample ask about some at a time. `step`: the interval of the grid that it belongs to,
    from 0, for samplers that do not have a fixed number of evaluations in a step. `graph`: answer
    with a tensor that `x` can be differentiated through. `cond`: conditions that take the place of
    the run's own, such as no class for each sample of `x`, or a function that makes conditions of
    the run's own, for edits that guide. `variance`: answer also with the network's learned
    variance, from the same evaluation, which is put there.
    """

    x: Any
    sigma: float
    rows: Sequence[int] | None = None
    step: int | None = None
    graph: bool = False
    cond: Mapping[str, Any] | Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    variance: Variance | None = None


class Noise(Protocol):
    """Standard normal noise for the interval from noise level `s` to `t`, a pure function: the same
    arguments give the same bits. `draw` numbers further independent draws on one interval, and
    `stream` names an auxiliary noise that is independent of all others."""

    def __call__(self, s: float, t: float, draw: int = 0, *, stream: str = "") -> Any: ...


class Walk:
    """A sampler under way: the only place from which coroutines are sent to.

    `ask` is what it asks now, None once it has ended; then `result` is what it returned. Where it
    asks several things at once, `asks` has all, and they are answered in their order. `rounds`
    counts how often it has asked, a list as one. Answers are detached from any graph, unless
    `graph`, or the ask itself, says otherwise.
    """

    def __init__(self, coroutine: Coroutine, graph: bool = False):
        if not isinstance(coroutine, Generator):
            kind = type(coroutine).__name__
            raise TypeError(f"a sampler must be a generator: one that yields asks, not {kind}")
        self._coroutine = coroutine
        self._graph = graph
        self._answers: list[Any] = []
        self._one = True
        self.rounds = 0
        self.asks: Sequence[Ask] = ()
        self.result: Any = None
        self._send(None)

    @property
    def ask(self) -> Ask | None:
        """The next ask that has no answer yet; None if there is none."""
        return self.asks[len(self._answers)] if self.asks else None

    def answer(self, *denoised: Any) -> None:
        """Answer the next ask, or several in their order. Once all have answers, the sampler goes
        on to its next asks, or to its end."""
        for one in denoised:
            ask = self.asks[len(self._answers)]
            follows = self._graph or ask.graph or not getattr(one, "requires_grad", False)
            self._answers.append(one if follows else one.detach())
        if len(self._answers) == len(self.asks):
            answers, self._answers = self._answers, []
            self._send(answers[0] if self._one else answers)

    def _send(self, answer: Any) -> None:
        self.asks = ()
        for _ in range(MOST_EMPTY):  # an empty list asks nothing
            try:
                said = self._coroutine.send(answer)
            except StopIteration as stop:
                self.result = stop.value
                return
            self._one = not isinstance(said, list)
            self.asks = [_as_ask(one) for one in ([said] if self._one else said)]
            if self.asks:
                self.rounds += 1
                return
            answer = []
        raise ValueError(f"a sampler does not end: it has yielded {MOST_EMPTY:,} empty lists")


def _as_ask(said: Any) -> Ask:
    if isinstance(said, tuple) and 2 <= len(said) <= len(Ask._fields):
        return Ask(*said)
    shown = " ".join(repr(said).split())
    raise TypeError(f"a sampler must yield (x, sigma), or a list of such, not {shown:.80}")
