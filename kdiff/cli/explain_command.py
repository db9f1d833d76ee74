"""`kdiff explain`: a sampler's traced tableau, or schedules side by side."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kdiff.cli import explain_schedules as schedules
from kdiff.cli.grid_options import (
    CONTEXT,
    choose_plan,
    given_sigmas,
    grid_options,
    to_json,
    usage_errors,
)
from kdiff.cli.modification_options import guide_options, short_form
from kdiff.cli.outputs import check_free, writing
from kdiff.cli.paths import UserPath
from kdiff.guidance.questions import Questions
from kdiff.modifications import Modification
from kdiff.plans import Plan
from kdiff.samplers.outline import Draw
from kdiff.samplers.tableau import Linear, Tableau, trace
from kdiff.tableau_files import PREFIX, TableauFile, write_tableau

MOST_STEPS, MOST_ASKS = 1000, 10_000
MADE_FROM = ("sampler", "options", "schedule", "final", "steps")


@click.command("explain", context_settings=CONTEXT)
@click.argument("sampler", required=False)
@grid_options
@guide_options
@click.option("--json", "as_json", is_flag=True, help="All digits, for machines.")
@click.option(
    "--save",
    type=UserPath(dir_okay=False),
    help="Write the tableau, itself a sampler; without SAMPLER, draw the schedules (.png).",
)
@click.option("--overwrite", is_flag=True, help="Replace that file, if there is one.")
def command(
    sampler: str | None,
    as_json: bool,
    save: Path | None,
    overwrite: bool,
    guides: Sequence[Modification],
    guidance: str | None,
    **grid: Any,
) -> None:
    """Show exactly what SAMPLER computes: its order, its NFE, and each evaluation as a combination
    of the start x_T, earlier denoised images D1, D2 .. and noises n1, n2 ..; with guidance, also
    what each evaluation asks the network. SAMPLER may be the file of a tableau.

    Without SAMPLER: the noise levels of a list of schedules side by side, such as --schedule
    karras,beta --steps 10.
    """
    if save is not None:
        check_free(save, overwrite)
    if sampler is None:
        compare(save, as_json, [*guides, *([guidance] if guidance else [])], grid)
        return
    asked = Questions(guides=[*short_form(guidance, guides), *guides])
    plan = choose_plan(asked, sampler, **grid)
    if plan.steps > MOST_STEPS:
        raise click.UsageError(f"at most {MOST_STEPS} steps: the tableau grows with their square")
    if plan.limit is not None:
        name = plan.sampler.name
        raise click.UsageError(f"{name} is adaptive: what it computes depends on the model")
    with usage_errors():
        if plan.nfe is not None and plan.nfe > MOST_ASKS:
            raise ValueError(
                f"at most {MOST_ASKS:,} evaluations, not {plan.nfe:,}: take fewer steps"
            )
        tableau = trace(plan.solver, plan.sigmas, plan.options)
        if save is not None:
            with writing(save):
                write_tableau(save, file_of(plan, tableau))
    click.echo(to_json(as_dict(plan, tableau, asked)) if as_json else text(plan, tableau, asked))


def compare(save: Path | None, as_json: bool, guides: Sequence[Any], grid: dict[str, Any]) -> None:
    """Show or draw the schedules of --schedule."""
    if guides or grid["options"] or grid["first"]:
        raise click.UsageError("guidance, options and --first are of a sampler: name one")
    if save is not None and save.suffix.lower() != ".png":
        raise click.UsageError(f"--save takes a name that ends in .png, not {save}")
    with usage_errors("kdiff list schedules"):
        grids = schedules.schedules_of({**grid, "sigmas": given_sigmas(**grid)})
    if found := schedules.discrete(grids):
        told = f"Note: {', '.join(found)}: over Stable Diffusion's timesteps"
        click.echo(told, err=True)
    if save is not None:
        with writing(save):
            schedules.draw(grids, save)
    click.echo(to_json(grids) if as_json else schedules.table(grids))


def as_dict(plan: Plan, tableau: Tableau, asked: Questions) -> dict[str, Any]:
    """Everything, with all digits. With guidance, `nfe` counts the `questions` of all asks."""
    rows: list[dict[str, Any]] = [
        {"step": row.step, "sigma": row.sigma, "x": dict(row.x.terms)} for row in tableau.asks
    ]
    guided: dict[str, Any] = {}
    if asked.guides:
        rows = [{**row, "questions": sorted(asked.asks(row["sigma"]))} for row in rows]
        nfe = evaluations(tableau, asked)
        guided = {"guidance": [one.record() for one in asked.guides], "nfe": nfe}
    return {
        **plan.record(),
        **guided,
        "order": plan.sampler.order(plan.options),
        "asks": rows,
        "noises": [noise(draw) for draw in tableau.draws],
        "result": dict(tableau.result.terms),
    }


def file_of(plan: Plan, tableau: Tableau) -> TableauFile:
    """What --save writes, with what it was made from."""
    made = plan.record()
    source = {key: made[key] for key in (*MADE_FROM, "first", "tableau") if key in made}
    name = plan.sampler.name.removeprefix(PREFIX)
    noise = plan.sampler.noise if tableau.draws else None
    return TableauFile(name, tableau, plan.sigmas, noise, source)


def evaluations(tableau: Tableau, asked: Questions) -> int:
    """How often all asks evaluate the network."""
    return sum(asked.evaluations(row.sigma) for row in tableau.asks)


def noise(draw: Draw) -> dict[str, Any]:
    """Its interval; which draw it is, if not the first; and its stream, if not the main one."""
    numbered = {"draw": draw.draw} if draw.draw else {}
    named = {"stream": draw.stream} if draw.stream else {}
    return {"from": draw.s, "to": draw.t, **numbered, **named}


def text(plan: Plan, tableau: Tableau, asked: Questions) -> str:
    """The same for people, a line an evaluation."""
    s, order = plan.sampler, plan.sampler.order(plan.options)
    options = ", ".join(f"{k} = {v}" for k, v in plan.options.items())
    nfe, guides, questions = evaluations(tableau, asked), [], {}
    if asked.guides:
        guides = [f"guidance {', '.join(map(str, asked.guides))}"]
        levels = {row.sigma for row in tableau.asks}
        questions = {s: ", ".join(sorted(asked.asks(s))) or "nothing" for s in levels}
    wide = max(map(len, ["asks for", *questions.values()])) if questions else 0

    def question(told: str) -> str:
        return f"{told:{wide}}  " if questions else ""

    head = [
        f"{s.name}: {' '.join((inspect.getdoc(s.function) or '').split())}",
        f"source   {s.paper}",
        f"options  {options or 'none'}",
        f"order    {'not claimed' if order is None else f'{order} on the ODE'}"
        + ("; draws noise with these options" if s.stochastic(plan.options) else ""),
        f"steps    {plan.steps} on the {plan.schedule} grid",
        *guides,
        *first_answer(plan),
        f"NFE      {nfe}" + (f" ({tableau.nfe} asks)" if nfe != tableau.nfe else ""),
        "",
        f" ask  step       sigma  {question('asks for')}denoised there: x =",
    ]
    rows = [
        f"{f'D{i}':>4}  {row.step + 1:4d}  {row.sigma:10.4g}  "
        f"{question(questions.get(row.sigma, ''))}{formula(row.x)}"
        for i, row in enumerate(tableau.asks, 1)
    ]
    last = f"result      {plan.sigmas[-1]:10.4g}  {question('')}{formula(tableau.result)}"
    about = "noise" + ("; where intervals overlap, correlated" if s.noise == "brownian" else "")
    noises = [f"n{i}: {in_words(draw)}" for i, draw in enumerate(tableau.draws, 1)]
    return "\n".join([*head, *rows, last, *(["", about, *noises] if noises else [])])


def first_answer(plan: Plan) -> list[str]:
    """What stands for the first evaluation, if anything does."""
    if plan.first is None:
        return []
    s, std = plan.sigmas[0], plan.first.std
    k = std**2 / (std**2 + s**2)
    return [
        f"first    D(x_T; {s:.4g}) = mean + {k:.4g} (x_T - mean), of the data's mean and spread "
        f"{std:.4g}: no evaluation"
    ]


def in_words(draw: Draw) -> str:
    """`from 80 to 21.6, draw 1, stream corrector`; the first draw, 0, is not numbered."""
    numbered = f", draw {draw.draw}" if draw.draw else ""
    named = f", stream {draw.stream}" if draw.stream else ""
    return f"from {draw.s:.4g} to {draw.t:.4g}{numbered}{named}"


def formula(x: Linear) -> str:
    """`0.305 x_T - 0.695 D1`, four digits; terms that are zero to rounding are left out."""
    text = ""
    smallest = 1e-15 * max(map(abs, x.terms.values()))
    for symbol, c in x.terms.items():
        if abs(c) > smallest:
            sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
            text += f"{sign}{abs(c):.4g} {symbol}"
    return text or "0"
