"""One training in several processes, as `torchrun` starts them: their devices, and a common end."""

import os
import signal

import click
import torch
import torch.distributed as dist


def device_of_this_process() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")


def start_processes(batch: int) -> tuple[int, int]:
    """How many there are, and which this is (under torchrun), ready to speak to each other."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if batch % world:
        raise click.UsageError(f"--batch {batch} cannot be divided over {world} processes")
    device = device_of_this_process()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what NCCL goes by
        torch.backends.cudnn.benchmark = True
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return world, rank


class StopRequest:
    """Becomes true at SIGINT or SIGTERM, so that the loop can save and leave."""

    EVERY = 20  # steps: processes wait for each other when they ask

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_) -> None:
        self.asked = True

    def at(self, step: int) -> bool:
        """Whether any process was asked: all must leave the loop in the same step."""
        if not dist.is_initialized():
            return self.asked
        if step % self.EVERY:
            return False
        asked = torch.tensor(float(self.asked), device=device_of_this_process())
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked)
