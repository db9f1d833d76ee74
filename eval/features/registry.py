"""The feature networks by name, and how one of them is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kdiff.eval.features.network import FeatureNetwork, Features
from kdiff.eval.features.plugins import ENTRY_POINTS, Answers, find_plugin, plugin_names
from kdiff.names import Registry

DEFAULT_FEATURES, DEFAULT_RESIZE = "inception", "legacy_tensorflow"


@dataclass(frozen=True)
class Kind:
    """A network that can be chosen: what it is, and what loads it. `load` is called with `device`,
    with `logits` (whether a metric needs them), and with those of the `settings` "resize" and
    "weights" that the kind has."""

    help: str
    load: Callable[..., FeatureNetwork]
    settings: tuple[str, ...] = ()


class FeatureNetworks(Registry[Kind]):
    """Plug-ins are listed by their entry points, and imported only when they are chosen."""

    def all(self) -> FeatureNetworks:
        for name, function in plugin_names().items():
            self.setdefault(name, _plugin(name, function))
        return self


FEATURES = FeatureNetworks("feature network", ENTRY_POINTS)


def feature_network(
    name: str = DEFAULT_FEATURES,
    *,
    resize: str | None = None,
    weights: str | Path | None = None,
    device: torch.device | str = "cpu",
    logits: bool = False,
) -> FeatureNetwork:
    """The network of that name.

    `inception`: FID's, with `resize` one of `kdiff.eval.features.resize.MODES` (default:
    legacy_tensorflow, as in most papers) and `weights` a file, found by itself if None; `logits`:
    insist on a file that has them. `cifar10-classifier`: a small and fast one, for images of
    32 x 32. Any other name is a plug-in: an entry point in the group `kdiff.features`, or
    `module:function`; a function from uint8 images `[N, H, W, 3]` to features `[N, D]`, or to
    (features, logits `[N, K]`), with an attribute `weights`, a hash, if it has weights.
    ValueError if there is no such network, it cannot be imported, or its weights are not there.
    """
    if not isinstance(name, str):
        raise ValueError(f"a feature network is a name, such as module:function, not {name!r:.80}")
    kind = _plugin(name, name) if ":" in name else FEATURES.find(name).thing
    given = {"resize": resize, "weights": weights}
    if any(value is not None and key not in kind.settings for key, value in given.items()):
        raise ValueError(f"--resize and --weights are for inception, not for {name}")
    own = {key: given[key] for key in kind.settings}
    return kind.load(device=torch.device(device), logits=logits, **own)


def feature_networks() -> dict[str, str]:
    """What there is to choose by name, and what it is; plug-ins with the function they name."""
    return {name: kind.help for name, kind in FEATURES.all().items()}


def _plugin(name: str, about: str) -> Kind:
    def load(device: torch.device, logits: bool) -> FeatureNetwork:
        function = find_plugin(name)
        answers = Answers(name, function)
        hashed = getattr(function, "weights", "")
        return FeatureNetwork(name, None, hashed, lambda images: Features(*answers(images)))

    return Kind(about, load)
