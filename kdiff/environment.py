"""What a result was computed on, for results to carry."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import torch


def environment(device: torch.device | str = "cpu") -> dict[str, str]:
    """Versions, the platform, and the name of the device."""
    device = torch.device(device)
    return {
        "kdiff": version("kdiff"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }
