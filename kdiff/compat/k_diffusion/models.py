"""`k_diffusion.models`: its networks, which are called with sigma itself, as there.
`K.config.make_model` makes them from a config."""

from __future__ import annotations

from torch import Tensor

from kdiff.compat.k_diffusion._missing import says_what_is_missing
from kdiff.networks.k_diffusion_v1 import KDiffusionV1
from kdiff.networks.k_diffusion_v2 import KDiffusionV2

__all__ = ["ImageDenoiserModelV1", "ImageTransformerDenoiserModelV2"]

__getattr__ = says_what_is_missing("models")


class ImageDenoiserModelV1(KDiffusionV1):
    """`image_v1`. It takes the arguments of `kdiff.networks.k_diffusion_v1`."""

    def forward(  # type: ignore[override]
        self,
        input: Tensor,
        sigma: Tensor,
        mapping_cond: Tensor | None = None,
        unet_cond: Tensor | None = None,
    ) -> Tensor:
        return super().forward(input, sigma.log() / 4, None, mapping_cond, unet_cond)


class ImageTransformerDenoiserModelV2(KDiffusionV2):
    """`image_transformer_v2`. It takes the arguments of `kdiff.networks.k_diffusion_v2`."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        sigma: Tensor,
        aug_cond: Tensor | None = None,
        class_cond: Tensor | None = None,
        mapping_cond: Tensor | None = None,
    ) -> Tensor:
        """`class_cond` `[N]`: the class, or the number of classes for none. ValueError if the model
        has classes and `class_cond` is not given; NotImplementedError if `aug_cond` is."""
        if aug_cond is not None:
            raise NotImplementedError(
                "kdiff's image_transformer_v2 takes no aug_cond: leave it out"
            )
        if self.num_classes and class_cond is None:
            raise ValueError(
                f"class_cond must be given: [N], a class or {self.num_classes} for none"
            )
        return super().forward(x, sigma.log() / 4, class_cond, mapping_cond)
