"""`kdiff explain`: a sampler's traced tableau."""

from __future__ import annotations

import inspect
from typing import Any

import click

from kdiff.cli.grid_options import CONTEXT, grid_options, make_plan, to_json
from kdiff.plans import Plan
from kdiff.samplers.tableau import Linear, Tableau, trace

MOST_STEPS = 1000


@click.command("explain", context_settings=CONTEXT)
@click.argument("sampler")
@grid_options
@click.option("--json", "as_json", is_flag=True, help="The tableau with all digits, for machines.")
def command(sampler: str, as_json: bool, **grid: Any) -> None:
    """Show exactly what SAMPLER computes: its order, its NFE, and for each evaluation which
    combination of the start x_T, earlier denoised images D1, D2 .. and noises n1, n2 .. it is."""
    plan = make_plan(None, sampler, **grid)
    if plan.steps > MOST_STEPS:
        raise click.UsageError(f"at most {MOST_STEPS} steps: the tableau grows with their square")
    tableau = trace(plan.sampler, plan.sigmas, plan.options)
    click.echo(to_json(as_dict(plan, tableau)) if as_json else text(plan, tableau))


def as_dict(plan: Plan, tableau: Tableau) -> dict[str, Any]:
    """Everything, with all digits."""
    return {
        **plan.record(),
        "order": plan.sampler.order(plan.options),
        "asks": [
            {"step": row.step, "sigma": row.sigma, "x": dict(row.x.terms)} for row in tableau.asks
        ],
        "noises": [{"from": s, "to": t} for s, t in tableau.noises],
        "result": dict(tableau.result.terms),
    }


def text(plan: Plan, tableau: Tableau) -> str:
    """The same for people, a line an evaluation."""
    s = plan.sampler
    options = ", ".join(f"{k} = {v}" for k, v in plan.options.items())
    head = [
        f"{s.name}: {' '.join((inspect.getdoc(s.function) or '').split())}",
        f"source   {s.paper}",
        f"options  {options or 'none'}",
        f"order    {s.order(plan.options)} on the ODE"
        + ("; draws noise with these options" if s.stochastic(plan.options) else ""),
        f"steps    {plan.steps} on the {plan.schedule} grid",
        f"NFE      {tableau.nfe}",
        "",
        " ask  step       sigma  denoised there: x =",
    ]
    rows = [
        f"{f'D{i}':>4}  {row.step + 1:4d}  {row.sigma:10.4g}  {formula(row.x)}"
        for i, row in enumerate(tableau.asks, 1)
    ]
    last = f"result      {plan.sigmas[-1]:10.4g}  {formula(tableau.result)}"
    about = "noise" + ("; where intervals overlap, correlated" if s.noise == "brownian" else "")
    noises = [f"n{i}: from {a:.4g} to {b:.4g}" for i, (a, b) in enumerate(tableau.noises, 1)]
    return "\n".join([*head, *rows, last, *(["", about, *noises] if noises else [])])


def formula(x: Linear) -> str:
    """`0.305 x_T - 0.695 D1`, four digits; terms that are zero to rounding are left out."""
    text = ""
    smallest = 1e-15 * max(map(abs, x.terms.values()))
    for symbol, c in x.terms.items():
        if abs(c) > smallest:
            sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
            text += f"{sign}{abs(c):.4g} {symbol}"
    return text or "0"
