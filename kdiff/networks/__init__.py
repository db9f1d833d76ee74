"""The U-Nets of the checkpoint formats that kdiff reads, by the name their files carry."""

from kdiff.networks.song_unet import SongUNet

NETWORKS = {"song_unet": SongUNet}
