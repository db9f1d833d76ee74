"""How much time it saves on a CPU to keep freed memory, as the `kdiff` command does.

    python tools/bench_memory.py --batch 16 --batch 64 --batch 256

In each round, a process that keeps it and a process that does not sample the same pictures with the
packaged model. Prints images x evaluations a second (medians over the rounds), and the median ratio
within a round.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import click

import kdiff
from kdiff.cli.memory import keep_freed_memory

EVALUATIONS = 512  # images times steps, in each measurement


@click.command(context_settings={"show_default": True})
@click.option("--batch", "batches", multiple=True, default=(16, 64, 256))
@click.option("--rounds", default=5)
@click.option("--only", type=click.Choice(["kept", "returned"]), help="This process's way only.")
def main(batches: tuple[int, ...], rounds: int, only: str | None) -> None:
    """Time both ways; see the top of this file."""
    if only:
        if only == "kept":
            keep_freed_memory()
        click.echo(" ".join(str(rate(batch)) for batch in batches))
        return
    found = [(measure("kept", batches), measure("returned", batches)) for _ in range(rounds)]
    for i, batch in enumerate(batches):
        kept, returned = ([side[i] for side in sides] for sides in zip(*found, strict=True))
        ratio = statistics.median(k / r for k, r in zip(kept, returned, strict=True))
        click.echo(
            f"batch {batch:4}: {statistics.median(kept):7.1f}/s with freed memory kept, "
            f"{statistics.median(returned):7.1f}/s without: {ratio:.2f} times"
        )


def rate(batch: int) -> float:
    """Images x evaluations a second, after a first evaluation."""
    model, steps = kdiff.load("cifar10"), max(2, EVALUATIONS // batch)
    kdiff.sample(model, "euler", steps=1, n=batch, batch=batch)
    began = time.perf_counter()
    kdiff.sample(model, "euler", steps=steps, n=batch, batch=batch)
    return batch * steps / (time.perf_counter() - began)


def measure(way: str, batches: tuple[int, ...]) -> list[float]:
    """`rate` in a process of its own, because the setting cannot be undone in a process."""
    words = [sys.executable, __file__, "--only", way, *(f"--batch={batch}" for batch in batches)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
