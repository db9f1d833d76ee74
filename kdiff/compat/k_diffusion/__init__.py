"""k-diffusion's interface on kdiff's samplers: `from kdiff.compat import k_diffusion as K`.

Programs written for k-diffusion 0.1.1 run as they are, without its dependencies. What differs is
listed in docs/k-diffusion.md.
"""

from kdiff.compat.k_diffusion import external, layers, sampling, utils
from kdiff.compat.k_diffusion.layers import Denoiser

__all__ = ["Denoiser", "external", "layers", "sampling", "utils"]
