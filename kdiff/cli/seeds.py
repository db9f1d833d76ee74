"""Which images `kdiff sample` makes: --num, --seed and --seeds."""

from __future__ import annotations

import click

MOST_IMAGES = 1_000_000


def choose_seeds(
    num: int | None, seed: int | None, seeds: str | None, usual: int = 16
) -> list[int]:
    """--num images from --seed on, by default `usual` ones, or --seeds `0-63`, `3,5,8-10`."""
    if num is not None and num < 1:
        raise click.UsageError(f"--num must be at least 1, not {num}")
    if seeds is None:
        count = usual if num is None else num
        check_count(count)
        first = seed or 0
        chosen = list(range(first, first + count))
    else:
        if seed is not None:
            raise click.UsageError("give only one of --seed and --seeds")
        chosen = parse_seeds(seeds)
        if num not in (None, len(chosen)):
            raise click.UsageError(f"--num {num}, but --seeds names {len(chosen)}")
    if not all(0 <= one < 2**64 for one in chosen):
        raise click.UsageError("seeds must be from 0 to 2^64 - 1")
    return chosen


def check_count(n: int) -> None:
    if n > MOST_IMAGES:
        raise click.UsageError(f"at most {MOST_IMAGES} images in one run, not {n}")


def parse_seeds(text: str) -> list[int]:
    """`3,5,8-10` -> [3, 5, 8, 9, 10]."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise click.UsageError(f"--seeds takes 0-63 or 3,5,8-10, not {text!r}")
        part_seeds = range(int(first), int(last if dash else first) + 1)
        check_count(len(seeds) + part_seeds.stop - part_seeds.start)
        seeds += part_seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise click.UsageError(f"--seeds {text!r} names no seed, or one twice")
    return seeds
