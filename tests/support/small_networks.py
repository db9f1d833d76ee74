"""Networks and weights that several test files share."""

import torch
from torch import nn


class Network(nn.Module):
    """Two convolutions and a group norm; enough to round differently in different batches."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(3, 32, 3, padding=1)
        self.labels = nn.Embedding(10, 32)
        self.norm = nn.GroupNorm(4, 32)
        self.conv_out = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, x, c_noise, class_labels=None):
        h = self.conv_in(x) + c_noise[:, None, None, None]
        if class_labels is not None:
            h = h + self.labels(class_labels)[:, :, None, None]
        return self.conv_out(torch.nn.functional.silu(self.norm(h)))


def fill(network):
    """Weights that any program can repeat: sin(k), k = 1, 2, .. scaled by the fan-in."""
    for key, value in network.state_dict().items():
        if "resample_filter" not in key:
            k = torch.arange(1, value.numel() + 1, dtype=torch.float64)
            scale = (value[0].numel() if value.ndim > 1 else 4) ** -0.5
            value.copy_((k.sin() * scale).reshape(value.shape))
