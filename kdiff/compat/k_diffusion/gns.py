"""`k_diffusion.gns` measures gradients in training, and kdiff only samples."""

from kdiff.compat.k_diffusion._missing import says_what_is_missing

__getattr__ = says_what_is_missing("gns")
