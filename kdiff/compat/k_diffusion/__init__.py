"""k-diffusion's interface on kdiff's samplers: `from kdiff.compat import k_diffusion as K`, or
`kdiff.compat.k_diffusion.install()` before a program that imports k_diffusion itself.

Programs written for k-diffusion 0.1.1 that sample run as they are, without its dependencies. What
differs is listed in docs/k-diffusion.md.
"""

from __future__ import annotations

import sys

from kdiff.compat.k_diffusion import (
    augmentation,
    config,
    evaluation,
    external,
    gns,
    layers,
    models,
    sampling,
    utils,
)
from kdiff.compat.k_diffusion.layers import Denoiser

__all__ = [
    "Denoiser",
    "augmentation",
    "config",
    "evaluation",
    "external",
    "gns",
    "install",
    "layers",
    "models",
    "sampling",
    "utils",
]


def install() -> None:
    """Make this package what `import k_diffusion` finds in this process, with its submodules.

    RuntimeError if the real k-diffusion has been imported already. One that is only installed is
    left alone, and is no longer found.
    """
    this = sys.modules[__name__]
    if sys.modules.get("k_diffusion", this) is not this:
        raise RuntimeError(
            "k_diffusion is imported already, and it is not kdiff's: call install() before it"
        )
    for name, module in list(sys.modules.items()):
        if name == __name__ or name.startswith(f"{__name__}."):
            sys.modules["k_diffusion" + name.removeprefix(__name__)] = module
