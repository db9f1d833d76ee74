"""What the record of a run says beside its plan: what it took, and what guided it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdiff.driver import State
from kdiff.modifications import Modification


@dataclass
class Taken:
    """The most evaluations of the network, the most asks of the sampler, and the most rounds of
    asks that could be answered at once, for any image so far; and the evaluations of `images` in
    all. All images have the same, unless the sampler is adaptive."""

    nfe: int = 0
    asks: int = 0
    evaluations: int = 0
    images: int = 0
    rounds: int = 0

    def see(self, state: State) -> None:
        """The last state of a batch."""
        self.nfe, self.asks = max(self.nfe, state.nfe), max(self.asks, state.asks)
        self.rounds = max(self.rounds, state.rounds)
        self.evaluations += sum(state.each)
        self.images += len(state.each)

    def __add__(self, other: Taken) -> Taken:
        """Both runs together, which have other images of the same kind."""
        return Taken(
            max(self.nfe, other.nfe),
            max(self.asks, other.asks),
            self.evaluations + other.evaluations,
            self.images + other.images,
            max(self.rounds, other.rounds),
        )

    def record(self) -> dict[str, Any]:
        """For results to carry: `nfe`; `asks` where they are not as many; `rounds` where several
        are asked at once; and `nfe_mean` where images have different numbers."""
        varied = self.evaluations < self.nfe * self.images
        return {
            "nfe": self.nfe,
            **({} if self.asks == self.nfe else {"asks": self.asks}),
            **({"rounds": self.rounds} if 0 < self.rounds < self.asks else {}),
            **({"nfe_mean": self.evaluations / self.images} if varied else {}),
        }


def modified(model: Any) -> dict[str, Any]:
    """What the record says of the model's guidance, if there is any; networks beside the model with
    their hash."""
    record = model.record()
    return {"guidance": record["guidance"]} if record.get("guidance") else {}


def how_made(record: Mapping[str, Any]) -> str:
    """A run's record for people: `heun, 3 steps, cfg:scale=2.0, NFE 10 (5 asks)`."""
    changes = [*record.get("guidance", []), *record.get("edits", [])]
    named = [str(Modification(one["name"], one["options"])) for one in changes]
    asks = f" ({record['asks']} asks)" if "asks" in record else ""
    mean = [f"mean {record['nfe_mean']:.1f}"] if "nfe_mean" in record else []
    rounds = f" in {record['rounds']} rounds" if "rounds" in record else ""
    nfe = f"NFE {record['nfe']}{asks}{rounds}"
    first = [f"first {record['first']['name']}"] if "first" in record else []
    return ", ".join([record["sampler"], f"{record['steps']} steps", *first, *named, nfe, *mean])
