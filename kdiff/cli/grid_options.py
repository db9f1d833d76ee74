"""The options that choose a sampler and a grid, for every command that has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from kdiff.auto import is_auto, told
from kdiff.cli.sigma_list import sigma_list
from kdiff.files import to_json as to_json  # every command gets it with the rest
from kdiff.messages import MissingSetting
from kdiff.model_data import FIRSTS
from kdiff.plans import DEFAULT_STEPS, Plan, plan
from kdiff.ranges import beginning
from kdiff.samplers import UnknownName
from kdiff.schedules import FINALS

CONTEXT = {"show_default": True, "help_option_names": ["-h", "--help"]}


@contextmanager
def usage_errors(see: str = "kdiff list") -> Iterator[None]:
    """The library's ValueErrors, as one line and exit status 2; `see` is the command that shows the
    names there are."""
    try:
        yield
    except UnknownName as error:
        raise click.UsageError(f"{error} (see `{see}`)") from error
    except MissingSetting as error:
        told = (
            "as --set KEY=VALUE; for `kdiff sweep`, in a file that `kdiff convert --set KEY=VALUE` "
            "writes"
        )
        raise click.UsageError(f"{error} ({told})") from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error


first_option = click.option(
    "--first",
    type=click.Choice(FIRSTS),
    help="analytic: the first answer is made of the data's mean and spread, without an evaluation.",
)


def grid_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --steps to --option, and --first; the command gets them as `**grid`, for
    `choose_plan`."""
    options = [
        click.option(
            "--steps", type=int, help=f"Steps of the sampler.  [default: {DEFAULT_STEPS}]"
        ),
        click.option(
            "--nfe",
            type=int,
            help="Instead of --steps: as many steps as this many evaluations allow.",
        ),
        click.option("--schedule", help="karras, flow:shift=3 ..; see `kdiff list schedules`."),
        click.option(
            "--sigmas",
            help="Instead of all of these: the noise levels, such as 80,10,1,0, or a file of them: "
            "a JSON list, or one a line.",
        ),
        click.option("--sigma-min", type=float, help="Lowest noise level.  [default: the model's]"),
        click.option("--sigma-max", type=float, help="First noise level.  [default: the model's]"),
        click.option("--rho", type=float, help="Curvature of the karras schedule.  [default: 7]"),
        click.option(
            "--final",
            type=click.Choice(FINALS),
            help="End at noise level zero, or at sigma-min.  [default: zero]",
        ),
        first_option,
        click.option(
            "--option",
            "options",
            multiple=True,
            metavar="KEY=VALUE",
            help="An option of the sampler, such as eta=0.5; may be repeated.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def given_sigmas(sigmas: str | None, final: str | None, **grid: Any) -> list[float] | None:
    """The grid of --sigmas, if there is one. ValueError if it is none, or if --final has a say."""
    if sigmas is not None and final is not None:
        raise ValueError("sigmas are the whole grid: leave out final")
    return None if sigmas is None else sigma_list(sigmas)


def choose_plan(
    model: Any, sampler: str, rho: float | None, options: Any, sigmas: str | None, **grid: Any
) -> Plan:
    """The plan that the options ask for. A line on stderr says if it begins at the model's
    sigma_max, below the end of the model's table. click.UsageError if the options make no sense."""
    settings: dict[str, Any] = {} if rho is None else {"rho": rho}
    with usage_errors():
        levels, chosen = given_sigmas(sigmas, **grid), dict(map(key_value, options))
        made = plan(model, sampler, options=chosen, sigmas=levels, **settings, **grid)
        _ = made.levels  # a walk, in which samplers say what is wrong with options such as files
    if is_auto(sampler):
        click.echo(told(made, model), err=True)
    said = None if model is None else beginning(model)
    if said and math.isclose(made.sigmas[0], model.sigma_max):
        click.echo(f"Note: {said}", err=True)
    return made


def key_value(text: str) -> tuple[str, str]:
    """`eta=0.5` -> ("eta", "0.5")."""
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise click.UsageError(f"an option is KEY=VALUE, such as eta=0.5, not {text!r}")
    return key.strip(), value.strip()
