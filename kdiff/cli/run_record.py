"""What the record of a run says beside its plan: what it took, and what guided it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kdiff.driver import State
from kdiff.modifications import Modification


@dataclass
class Taken:
    """The most evaluations of the network, and the most asks of the sampler, for any image so far.
    All images have the same, unless the sampler is adaptive."""

    nfe: int = 0
    asks: int = 0

    def see(self, state: State) -> None:
        """The last state of a batch."""
        self.nfe, self.asks = max(self.nfe, state.nfe), max(self.asks, state.asks)

    def __add__(self, other: Taken) -> Taken:
        """Both runs together, which have other images of the same kind."""
        return Taken(max(self.nfe, other.nfe), max(self.asks, other.asks))

    def record(self) -> dict[str, int]:
        """For results to carry: `nfe`, and `asks` where they are not as many."""
        return {"nfe": self.nfe, **({} if self.asks == self.nfe else {"asks": self.asks})}


def modified(guides: Iterable[Modification]) -> dict[str, Any]:
    """What the record says of guidance, if there is any."""
    records = [guide.record() for guide in guides]
    return {"guidance": records} if records else {}


def how_made(record: Mapping[str, Any]) -> str:
    """A run's record for people: `heun, 3 steps, cfg:scale=2.0, NFE 10 (5 asks)`."""
    changes = [*record.get("guidance", []), *record.get("edits", [])]
    named = [str(Modification(one["name"], one["options"])) for one in changes]
    asks = f" ({record['asks']} asks)" if "asks" in record else ""
    return ", ".join(
        [record["sampler"], f"{record['steps']} steps", *named, f"NFE {record['nfe']}{asks}"]
    )
