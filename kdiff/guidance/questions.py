"""What guidance asks the networks, which is known without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdiff.guidance.asking import CONDITIONAL
from kdiff.guidance.registry import GUIDANCE, check_suits
from kdiff.modifications import Modification
from kdiff.schedules import Range

if TYPE_CHECKING:
    from kdiff.plans import Plan

LEVELS = [10 ** (k / 8) for k in range(-24, 17)]  # noise levels, from 0.001 to 100


@dataclass(frozen=True)
class Questions(Range):
    """What `guides`, the first one innermost, ask networks at each noise level. `kdiff.plan` takes
    it in the place of a model that they guide. Noise levels and the spread of data are EDM's."""

    guides: Sequence[Modification] = ()
    data_std: float = 0.5

    def asks(self, sigma: float) -> frozenset[str]:
        """The names of the questions that a call at this noise level puts to networks."""
        asked = frozenset({CONDITIONAL})
        for one in self.guides:
            asked = GUIDANCE.find(one.name).thing.asks(asked, sigma, **one.options)
        return asked

    def evaluations(self, sigma: float, /) -> int:
        return len(self.asks(sigma))

    def check_plan(self, plan: Plan) -> None:
        """ValueError if one of them is wrong with the plan's sampler."""
        for one in self.guides:
            check_suits(one, plan)


def asked_by(one: Modification) -> list[frozenset[str]]:
    """What a guidance with nothing inside asks at each of LEVELS."""
    return [Questions(guides=[one]).asks(sigma) for sigma in LEVELS]
