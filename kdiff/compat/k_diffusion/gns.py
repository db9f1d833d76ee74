"""`k_diffusion.gns` measures gradients in training: there is nothing of it here."""

from kdiff.compat.k_diffusion._missing import says_what_is_missing

__getattr__ = says_what_is_missing("gns")
