"""The noise levels of a model of 1000 timesteps."""

from types import SimpleNamespace

import kdiff

TABLE = kdiff.precond("eps").sigmas
DISCRETE_MODEL = SimpleNamespace(sigma_min=TABLE[0], sigma_max=TABLE[-1], sigmas=TABLE)
