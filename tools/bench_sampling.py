"""What sampling costs beyond the network, and beside other loops around the same network.

    python tools/bench_sampling.py --batch 64 --steps 10

The bare network, kdiff, a diffusers scheduler and a loop in k-diffusion's manner take turns, one
evaluation each in random order, so that a machine that becomes slower slows all of them. Printed is
the time per evaluation over the bare network's in the same round: the median over the rounds, with
the quartiles, of wall time and of CPU time.

Wall time counts only on a quiet machine; on Linux, the share that other programs took of it is
printed. On a busy one, CPU time in one thread still says something:

    python tools/bench_sampling.py --threads 1 --no-peers --rounds 20

With --guide, kdiff runs with classifier-free guidance, and the bare network has a batch twice as
large, as guidance needs it, of which the second half has no class:

    python tools/bench_sampling.py --guide --batch 32

In several threads CPU time includes waiting, unless OMP_WAIT_POLICY=passive is set.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor
from tqdm import tqdm

import kdiff
from kdiff.sampling import run as sample_stepwise

# Runs on a start with labels; after each evaluation it yields how many there have been.
Loop = Callable[[kdiff.Denoiser, kdiff.Plan, Tensor, Tensor], Iterator[int]]


@torch.no_grad()
def bare(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> Iterator[int]:
    c_noise = torch.zeros(len(x))
    for i in range(plan.nfe):
        model.network(x, c_noise, class_labels=labels)
        yield i + 1


@torch.no_grad()
def bare_doubled(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> Iterator[int]:
    x, labels = torch.cat([x, x]), torch.cat([labels, torch.full_like(labels, -1)])
    yield from bare(model, plan, x, labels)


def guided(sampler: str, scale: float = 1.5) -> Loop:
    """As `ours`, guided: each answer counts once, as a call of the doubled network does."""

    def loop(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> Iterator[int]:
        own, cond = kdiff.plan(model, sampler, nfe=plan.nfe), {"class_labels": labels}
        around = kdiff.guidance.cfg(model, scale)
        for _, states in sample_stepwise(around, own, range(len(x)), batch=len(x), cond=cond):
            for state in states:
                yield state.asks

    return loop


def ours(sampler: str) -> Loop:
    """Other samplers get the most steps within the plan's NFE."""

    def loop(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> Iterator[int]:
        own, cond = kdiff.plan(model, sampler, nfe=plan.nfe), {"class_labels": labels}
        for _, states in sample_stepwise(model, own, range(len(x)), batch=len(x), cond=cond):
            for state in states:
                yield state.nfe

    return loop


@torch.no_grad()
def diffusers_loop(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> Iterator[int]:
    scheduler = DPMSolverMultistepScheduler(
        use_karras_sigmas=True, final_sigmas_type="zero", algorithm_type="dpmsolver++"
    )
    scheduler.set_timesteps(plan.steps)
    x = x * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        c_noise = torch.full((len(x),), float(t) / 1000)
        eps = model.network(scheduler.scale_model_input(x, t), c_noise, class_labels=labels)
        x = scheduler.step(eps, t, x).prev_sample
        yield i + 1


@torch.no_grad()
def k_diffusion_style_loop(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> Iterator[int]:
    """DPM++ 2M as loops with tensor sigmas write it, one tensor operation for each scalar one."""
    sigmas = torch.tensor(plan.sigmas, dtype=torch.float32)
    ones, old = x.new_ones(len(x)), None
    x = x * sigmas[0]
    for i in range(len(sigmas) - 1):
        sigma = (sigmas[i] * ones)[:, None, None, None]
        total = (sigma**2 + 0.25).sqrt()
        f = model.network(x / total, sigma.log().flatten() / 4, class_labels=labels)
        d = x * 0.25 / total**2 + f * sigma * 0.5 / total
        h = sigmas[i].log() - sigmas[i + 1].log()
        mixed = d
        if old is not None and sigmas[i + 1] > 0:
            r = (sigmas[i - 1].log() - sigmas[i].log()) / h
            mixed = (1 + 1 / (2 * r)) * d - 1 / (2 * r) * old
        x = sigmas[i + 1] / sigmas[i] * x - (-h).expm1() * mixed
        old = d
        yield i + 1


class Costs:
    """Seconds of wall and of CPU time per evaluation, for each loop in each round; the first one is
    what the others are compared with."""

    def __init__(self, loops: dict[str, Callable[[], Iterator[int]]]):
        self.loops = loops
        self.rounds: dict[str, list[np.ndarray]] = {name: [] for name in loops}

    def another_round(self) -> None:
        running = {name: loop() for name, loop in self.loops.items()}
        spent = {name: np.zeros(2) for name in running}
        evaluations: dict[str, int] = {}
        while running:
            for name in random.sample(list(running), len(running)):
                began = _clocks()
                count = next(running[name], None)
                spent[name] += _clocks() - began
                if count is None:
                    del running[name]
                else:
                    evaluations[name] = count
        for name, costs in spent.items():
            self.rounds[name].append(costs / evaluations[name])

    def table(self) -> Iterator[str]:
        first = next(iter(self.rounds))
        yield f"{'':<24} {'seconds':>8}   of the {first}, and of its CPU time"
        for name, costs in self.rounds.items():
            ratios = np.array(costs) / np.array(self.rounds[first])
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75], axis=0)
            parts = [
                f"{middle[i]:6.3f} ({low[i]:.3f} to {high[i]:.3f})" for i in range(len(middle))
            ]
            yield f"{name:<24} {np.median(costs, axis=0)[0]:8.3f}   {'   '.join(parts)}"


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def _all_programs() -> float | None:
    """Seconds of CPU time that all programs together have taken; None if the system hides them."""
    try:
        words = Path("/proc/stat").read_text().split(maxsplit=9)
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, words[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


@click.command(context_settings={"show_default": True})
@click.option("--model", "name", default="cifar10")
@click.option("--batch", default=64)
@click.option("--steps", default=10)
@click.option("--rounds", default=5)
@click.option("--threads", default=torch.get_num_threads(), help="That torch computes in.")
@click.option("--peers/--no-peers", default=True, help="The loops that are not kdiff's.")
@click.option("--sampler", default="dpmpp_2m,dpmpp_2m_sde", help="kdiff's samplers to time.")
@click.option("--guide", is_flag=True, help="Guided samplers against the doubled network.")
def main(
    name: str,
    batch: int,
    steps: int,
    rounds: int,
    threads: int,
    peers: bool,
    sampler: str,
    guide: bool,
) -> None:
    """Time sampling loops against the bare network."""
    torch.set_num_threads(threads)
    model = kdiff.load(name)
    plan = kdiff.plan(model, "dpmpp_2m", steps=steps)
    x = torch.randn(batch, *model.shape, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % len(model.classes)
    samplers = sampler.split(",")
    loops: dict[str, Loop] = {"bare network": bare, **{f"kdiff {s}": ours(s) for s in samplers}}
    if guide:
        loops = {"doubled bare network": bare_doubled}
        loops |= {f"kdiff {s}, cfg": guided(s) for s in samplers}
    elif peers:
        loops |= {"diffusers dpm++ 2m": diffusers_loop}
        loops |= {"k-diffusion style 2m": k_diffusion_style_loop}
    costs = Costs({k: partial(loop, model, plan, x, labels) for k, loop in loops.items()})
    for loop in costs.loops.values():  # warm up
        next(loop())
    began, before = _clocks(), _all_programs()
    for _ in tqdm(range(rounds), unit="round"):
        costs.another_round()
    wall, own = _clocks() - began
    click.echo(f"batch {batch}, NFE {plan.nfe}, {rounds} rounds, {threads} threads")
    if before is not None:
        share = (_all_programs() - before - own) / (wall * (os.cpu_count() or 1))
        click.echo(f"other programs took {share:.1%} of the machine")
    for line in costs.table():
        click.echo(line)


if __name__ == "__main__":
    main()
