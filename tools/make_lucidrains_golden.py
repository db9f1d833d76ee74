"""Writes tests/golden/lucidrains.pt.gz, a checkpoint that denoising-diffusion-pytorch's own Trainer
saved, and lucidrains.json, what its moving average computes: tests/checkpoints/test_lucidrains.py
holds kdiff's reader against them. Needs denoising-diffusion-pytorch (made with 2.3.4).
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

OUT = Path(__file__).parents[1] / "tests/golden"


def main() -> None:
    torch.manual_seed(7)
    unet = Unet(dim=4, dim_mults=(1, 2), attn_heads=1, attn_dim_head=4)
    diffusion = GaussianDiffusion(unet, image_size=8, timesteps=50)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(100):  # the Trainer counts them, and opens none before it trains
            (folder / f"{i}.png").touch()
        trainer = Trainer(diffusion, name, num_samples=1, calculate_fid=False, results_folder=name)
        average = trainer.ema.ema_model.eval()
        with torch.no_grad():
            for parameter in average.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        trainer.save(1)
        saved = (folder / "model-1.pt").read_bytes()
    (OUT / "lucidrains.pt.gz").write_bytes(gzip.compress(saved, mtime=0))
    x = torch.arange(192, dtype=torch.float32).cos().reshape(1, 3, 8, 8)
    with torch.no_grad():
        y = average.model(x, torch.tensor([17.0]))
    golden = {
        "about": "output at x = cos(0, 1, ..), t = 17",
        "sigma_min": average.sqrt_recipm1_alphas_cumprod[0].item(),
        "sigma_max": average.sqrt_recipm1_alphas_cumprod[-1].item(),
        "output": [round(v, 7) for v in y.flatten().tolist()],
    }
    (OUT / "lucidrains.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
