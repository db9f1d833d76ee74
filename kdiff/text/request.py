"""What is asked of a text-to-image model, as runs and results have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kdiff.latent import check_takes_prompts

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Request:
    """Prompts, for images in turn, a negative prompt for all, the size of images, and the scale of
    distilled guidance; None is the model's own. `file`: the hash of the file with the prompts, if
    they come from one. `encoders`: the hash of what encodes them, which `settled` knows."""

    prompts: Sequence[str]
    negative: str | None = None
    width: int | None = None
    height: int | None = None
    distilled_guidance: float | None = None
    file: str | None = None
    encoders: str | None = None

    def settled(self, model: Any) -> Request:
        """The same with all that `model` says by default. ValueError if it takes no prompts, or not
        this size or guidance."""
        check_takes_prompts(model)
        width, height = self.fit(model).size
        return replace(
            self,
            width=width,
            height=height,
            distilled_guidance=model.distilled(self.distilled_guidance),
            encoders=model.texts.sha256(),
        )

    def fit(self, model: Any) -> Any:
        """The model for images of this size."""
        return model.resized(self.width, self.height)

    def conditions(
        self,
        model: Any,
        n: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> dict[str, Any]:
        """The conditions of `n` images, as `model.encode` has them."""
        return model.encode(
            [self.prompts[i % len(self.prompts)] for i in range(n)],
            self.negative,
            distilled_guidance=self.distilled_guidance,
            device=device,
            dtype=dtype,
        )

    def record(self) -> Mapping[str, Any]:
        """As plain values, for results to carry: prompts from a file by its hash and number."""
        listed: Any = list(self.prompts)
        distilled = self.distilled_guidance
        return {
            "prompts": {"sha256": self.file, "n": len(listed)} if self.file else listed,
            "negative": self.negative,
            "width": self.width,
            "height": self.height,
            **({} if distilled is None else {"distilled_guidance": distilled}),
            "encoders_sha256": self.encoders,
        }
