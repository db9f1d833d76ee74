"""Several processes under torchrun: each takes a share of the images, the first gets the result."""

from __future__ import annotations

import atexit
import os
from functools import reduce
from operator import add
from typing import Any

import torch.distributed as dist


def ranks() -> tuple[int, int]:
    """(rank, number of processes), (0, 1) without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("gloo")  # what is gathered lies on the CPU
        atexit.register(dist.destroy_process_group)
    return dist.get_rank(), dist.get_world_size()


def wait_for_all() -> None:
    """Block until every process is here."""
    if ranks()[1] > 1:
        dist.barrier()


def share(value: Any) -> Any:
    """The first process's value, in all processes."""
    if ranks()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gather(part: Any) -> Any:
    """In the first process the sum (`+`) of all processes' parts, in the order of their ranks; None
    in the others."""
    rank, world = ranks()
    if world == 1:
        return part
    parts: list[Any] | None = [None] * world if rank == 0 else None
    dist.gather_object(None if rank == 0 else part, parts)
    return None if parts is None else reduce(add, parts[1:], part)
