"""What sampling costs beyond the network, and beside other loops around the same network.

    python tools/bench_sampling.py --batch 64 --steps 10

In each round, one after the other and on the same start: the bare network NFE times; kdiff; a
diffusers scheduler; and a loop as in k-diffusion. Prints the time of each divided by the time of
the bare network in the same round, the median over the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor
from tqdm import tqdm

import kdiff


def bare(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> None:
    c_noise = torch.zeros(len(x))
    with torch.no_grad():
        for _ in range(plan.nfe):
            model.network(x, c_noise, class_labels=labels)


def ours(sampler: str) -> Callable[..., None]:
    def run(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> None:
        seeds = range(len(x))
        kdiff.sample(model, sampler, nfe=plan.nfe, seeds=seeds, batch=len(x), class_labels=labels)

    return run


def diffusers_loop(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> None:
    scheduler = DPMSolverMultistepScheduler(
        use_karras_sigmas=True, final_sigmas_type="zero", algorithm_type="dpmsolver++"
    )
    scheduler.set_timesteps(plan.steps)
    x = x * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            c_noise = torch.full((len(x),), float(t) / 1000)
            eps = model.network(scheduler.scale_model_input(x, t), c_noise, class_labels=labels)
            x = scheduler.step(eps, t, x).prev_sample


def k_diffusion_style_loop(model, plan: kdiff.Plan, x: Tensor, labels: Tensor) -> None:
    """DPM++ 2M as loops with tensor sigmas write it, one tensor operation for each scalar one."""
    sigmas = torch.tensor(plan.sigmas, dtype=torch.float32)
    ones, old = x.new_ones(len(x)), None
    x = x * sigmas[0]
    with torch.no_grad():
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


@click.command(context_settings={"show_default": True})
@click.option("--model", "name", default="cifar10")
@click.option("--batch", default=64)
@click.option("--steps", default=10)
@click.option("--rounds", default=5)
@click.option("--sampler", default="dpmpp_2m,dpmpp_2m_sde", help="kdiff's samplers to time.")
def main(name: str, batch: int, steps: int, rounds: int, sampler: str) -> None:
    """Time sampling loops against the bare network."""
    model = kdiff.load(name)
    plan = kdiff.plan(model, "dpmpp_2m", steps=steps)
    x = torch.randn(batch, *model.shape, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % len(model.classes)
    runs = {"bare network": bare}
    runs |= {f"kdiff {s}": ours(s) for s in sampler.split(",")}
    runs |= {"diffusers dpm++ 2m": diffusers_loop, "k-diffusion style 2m": k_diffusion_style_loop}
    for run in runs.values():  # warm up
        run(model, plan, x, labels)
    seconds: dict[str, list[float]] = {label: [] for label in runs}
    for _ in tqdm(range(rounds), unit="round"):
        for label, run in runs.items():
            started = time.perf_counter()
            run(model, plan, x, labels)
            seconds[label].append(time.perf_counter() - started)
    click.echo(f"batch {batch}, NFE {plan.nfe}, {rounds} rounds, {torch.get_num_threads()} threads")
    for label, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["bare network"], strict=True)]
        click.echo(
            f"{label:<24} {statistics.median(times):8.3f} s   "
            f"{statistics.median(ratios):6.3f} of the bare network"
        )


if __name__ == "__main__":
    main()
