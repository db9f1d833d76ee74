"""The networks of the checkpoint formats that kdiff reads: `NETWORKS`, by name.

A network is a module, called as `network(x, c_noise, class_labels=None)`. The decorator
`@network("song_unet")` puts its class into `NETWORKS` and makes each instance remember, in
`config`, what it was constructed with: `{"name": "song_unet", "img_resolution": 32, ..}`. That and
its tensors are all that a `kdiff/1` file has, so arguments must be values that JSON knows, and
every tensor that the network needs must be in its state dict (no buffers with `persistent=False`).
"""

# These register their networks.
import kdiff.networks.dhariwal_unet
import kdiff.networks.edm2_unet
import kdiff.networks.k_diffusion_v1
import kdiff.networks.k_diffusion_v2
import kdiff.networks.lucidrains_unet
import kdiff.networks.openai_unet  # noqa: F401
from kdiff.networks.registry import NETWORKS, at_most, classes_of, learns_variance, network
from kdiff.networks.song_unet import SongUNet

__all__ = ["NETWORKS", "SongUNet", "at_most", "classes_of", "learns_variance", "network"]
