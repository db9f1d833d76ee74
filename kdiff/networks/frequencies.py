"""Layers that keep their precision in networks of half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Frequencies(nn.Module):
    """A layer whose buffers keep their width when its network is made narrower. In bfloat16,
    angles of many turns are off by tenths of a turn."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, wide in before.items():
            now = self._buffers[name]
            if wide is not None and now is not None and now.dtype.itemsize < wide.dtype.itemsize:
                self._buffers[name] = wide.to(now.device)
        return self
