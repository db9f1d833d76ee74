"""`kdiff eval-fid`: metrics of images on disk, or of images that a model makes."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from kdiff.cli.choices import (
    DTYPES,
    choose_device,
    choose_labels,
    load_with,
    network_errors,
    settings_option,
)
from kdiff.cli.eval_fid_table import lines
from kdiff.cli.evaluating import choose_evaluation, choose_metrics, evaluation_options
from kdiff.cli.grid_options import CONTEXT, choose_plan, grid_options, to_json, usage_errors
from kdiff.cli.modification_options import (
    choose_negative,
    guided_model,
    modification_options,
)
from kdiff.cli.outputs import check_free, writing
from kdiff.cli.paths import UserPath
from kdiff.cli.prompt_options import OF_PROMPTS, prompt_options, settled
from kdiff.cli.run_record import Taken, modified
from kdiff.editing import guiding
from kdiff.environment import environment
from kdiff.eval.backends import BACKENDS, Backend, CannotRun, second_opinion
from kdiff.eval.evaluation import METRICS, Collector, Source, stream
from kdiff.eval.features import FeatureNetwork
from kdiff.eval.images.from_model import MOST_IMAGES, Generated, every_class
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.metrics.frechet import noise_floor
from kdiff.eval.ranks import gather, ranks
from kdiff.eval.references import Reference
from kdiff.files import whole_file
from kdiff.latent import check_pictures
from kdiff.models import DEFAULT_MODEL, find_model
from kdiff.modifications import Modification
from kdiff.plans import DEFAULT_SAMPLER
from kdiff.text import Request

DEFAULT_NUM = 1000
# Options for images that a model makes, which mean nothing for images on disk.
OF_MODELS = {
    *("model_name", "settings", "sampler", "steps", "nfe", "schedule", "sigma_min", "sigma_max"),
    *(
        "rho",
        "final",
        "first",
        "sigmas",
        "options",
        "guides",
        "guidance",
        "edits",
        "num",
        "seed",
        "class_label",
    ),
    *("negative_label", "dtype", "deterministic", *OF_PROMPTS),
}


@click.command("eval-fid", context_settings=CONTEXT)
@click.option(
    "--images",
    help="Evaluate a folder, .zip, .npz, FILE.npz:ARRAY or cifar10:test.  [default: a model's]",
)
@click.option("--model", "model_name", default=DEFAULT_MODEL, help="A model's name or its file.")
@settings_option
@click.option(
    "--sampler",
    default=DEFAULT_SAMPLER,
    help="Any name (`kdiff list samplers`), auto, or a tableau's file.",
)
@grid_options
@modification_options
@prompt_options
@click.option(
    "--num", type=click.IntRange(2, MOST_IMAGES), default=DEFAULT_NUM, help="How many images."
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the first image.")
@click.option(
    "--class-label",
    help="Name or number of a class, none, or a list of them to repeat.  [default: all in turn]",
)
@evaluation_options
@click.option("--metrics", default="fid", help="Such as fid,kid; see `kdiff list metrics`.")
@click.option(
    "--backend",
    type=click.Choice(["kdiff", *BACKENDS, "all"]),
    default="kdiff",
    help="Compute the metrics with other libraries too.",
)
@click.option("--batch", type=click.IntRange(1), default=64, help="Images computed together.")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: cuda if there is one]")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32", help="The model's.")
@click.option("--deterministic", is_flag=True, help="The same bits in any batch; slightly slower.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
@click.option("--out", type=UserPath(), help="Write the record to a file.")
@click.option("--overwrite", is_flag=True, help="Replace that file, if there is one.")
@click.pass_context
def command(
    ctx: click.Context,
    images: str | None,
    metrics: str,
    backend: str,
    batch: int,
    device: str | None,
    as_json: bool,
    out: Path | None,
    overwrite: bool,
    **others: Any,
) -> None:
    """Compare images on disk, or images that a model makes, with a reference: FID and more.

    Under torchrun, the processes share the images.
    """
    if out is not None:
        check_free(out, overwrite)
    evaluating = {key: others.pop(key) for key in ("ref", "features", "resize", "weights", "data")}
    where = choose_device(device)
    with usage_errors():
        wanted = choose_metrics(metrics)
        taken = Taken()
        source, about = choose_source(ctx, images, evaluating["data"], where, taken, others)
        network, reference, notes = choose_evaluation(wanted, where, **evaluating)
        collector = Collector(wanted, len(source), network, reference)
    opinions = ask_others(backend, network, evaluating["weights"])

    with network_errors(about["source"]):
        seconds = run(source, batch, collector, opinions)
    collected, taken = gather(collector), gather(taken)
    if collected is None:  # the first process has it all
        return
    if about["kind"] == "model":
        about |= taken.record()
    with usage_errors():
        figures = collected.figures()
        floor = noise_floor(reference.gaussian, len(source)) if "fid" in wanted else None
    record = {
        "metrics": {name: figure._asdict() for name, figure in figures.items()},
        "noise_floor": None if floor is None else {network.label("FID"): floor},
        "backends": {
            name: judge(opinion, wanted, network, reference) for name, opinion in opinions.items()
        },
        "images": about,
        "features": network.record(),
        "reference": reference.record(),
        "notes": [*about.get("notes", []), *notes],
        "batch": batch,
        "seconds": round(seconds, 3),
        "images_per_second": round(len(source) / seconds, 3),
        "environment": environment(where),
        "command": shlex.join(["kdiff", *sys.argv[1:]]),
    }
    if out is not None:  # first: printing can fail
        with writing(out), whole_file(out) as temporary:
            temporary.write_text(to_json(record) + "\n")
    click.echo(to_json(record) if as_json else "\n".join(lines(record, figures)))


def choose_source(
    ctx: click.Context,
    images: str | None,
    data: Path | None,
    where: torch.device,
    taken: Taken,
    others: Any,
) -> tuple[Source, dict[str, Any]]:
    """What is evaluated, and what the record says of it; `taken` counts what it takes to make."""
    if images is None:
        return generated(where, taken, **others)
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if option.name in OF_MODELS and source is not click.core.ParameterSource.DEFAULT:
            name = option.opts[0]
            raise click.UsageError(f"{name} is for images that a model makes, not for --images")
    pictures = open_pictures(images, data)
    about = {"kind": "images", "source": pictures.name, "n": len(pictures)}
    return pictures, {**about, "notes": list(pictures.notes)}


def generated(
    where: torch.device,
    taken: Taken,
    model_name: str,
    settings: Sequence[str],
    sampler: str,
    num: int,
    seed: int,
    class_label: str | None,
    negative_label: str | None,
    dtype: str,
    deterministic: bool,
    guides: Sequence[Modification],
    request: Request | None,
    **grid: Any,
) -> tuple[Generated, dict[str, Any]]:
    loaded = load_with(find_model(model_name), settings)
    check_pictures(loaded)
    loaded, asked = settled(loaded, request, [*guides, *guiding(grid["edits"])])
    model = guided_model(loaded, guides)
    labels, how = every_class(model, num)
    if class_label is not None:
        labels, how = choose_labels(model, class_label, num), class_label
    plan = choose_plan(model, sampler, **grid)
    negative = choose_negative(model, guides, plan.edits, labels, negative_label)
    told = asked.conditions(loaded, num, where, DTYPES[dtype]) if asked else {}
    model.to(where, DTYPES[dtype])
    about = {
        "kind": "model",
        "source": model_name,
        "n": num,
        "model_sha256": loaded.record()["sha256"],
        **({"model_settings": list(settings)} if settings else {}),
        **plan.record(),
        **modified(model),
        **({"text": asked.record()} if asked else {}),
        "seeds": {"first": seed, "n": num},
        "class_labels": how,
        **({"negative_class_labels": negative_label} if negative else {}),
        "dtype": dtype,
        "deterministic": deterministic,
    }
    seeds = range(seed, seed + num)
    cond = {**negative, **told}
    return Generated(model, plan, seeds, labels, deterministic, taken.see, cond), about


def run(source: Source, batch: int, collector: Collector, opinions: Mapping[str, Any]) -> float:
    """Stream the images through everything; the seconds it took."""
    backends = [opinion for opinion in opinions.values() if not isinstance(opinion, CannotRun)]
    started = time.perf_counter()
    try:
        quiet = None if ranks()[0] == 0 else True  # None: unless it is a terminal
        with tqdm(total=len(source) // ranks()[1], unit="image", disable=quiet) as bar:
            consumers = [
                collector.update,
                *(
                    lambda images, _, backend=backend: backend.update(images)
                    for backend in backends
                ),
                lambda images, _: bar.update(len(images)),
            ]
            stream(source, batch, consumers)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; an unfinished evaluation leaves nothing") from None
    return time.perf_counter() - started


def ask_others(
    backend: str, network: FeatureNetwork, weights: Path | None
) -> dict[str, Backend | CannotRun]:
    """The libraries of --backend, or why they cannot run."""
    if backend == "kdiff":
        return {}
    if ranks()[1] > 1:
        raise click.UsageError(f"--backend {backend} runs in one process only")
    opinions: dict[str, Backend | CannotRun] = {}
    for name in BACKENDS if backend == "all" else [backend]:
        try:
            opinions[name] = second_opinion(name, network, weights)
        except CannotRun as reason:
            opinions[name] = reason
    return opinions


def judge(
    opinion: Backend | CannotRun,
    metrics: list[str],
    network: FeatureNetwork,
    reference: Reference,
) -> dict[str, Any]:
    """A library's figures, and the reasons why some are missing or differ."""
    if isinstance(opinion, CannotRun):
        return {"figures": {}, "note": str(opinion)}
    figures, reasons = {}, []
    for metric in metrics:
        try:
            figures[network.label(METRICS[metric].label)] = opinion.figure(metric, reference)
        except CannotRun as reason:
            reasons.append(str(reason))
    return {"figures": figures, "note": "; ".join([opinion.note, *reasons])}
