"""What k-diffusion itself computes."""

import json

import torch

import places

GOLDEN = json.loads((places.GOLDEN / "k_diffusion_programs.json").read_text())
DTYPES = {"float32": torch.float32, "float64": torch.float64}
