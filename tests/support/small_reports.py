"""Lines of a sweep as `kdiff sweep` writes them, and the command that reports on them."""

import json

from click.testing import CliRunner

from kdiff.cli.report_command import command

HOSTILE = "</script><script>alert(1)</script> $x^{2$ ~50% & a|b `c` {\\evil}"


def a_line(sampler="euler", nfe=10, first=0, n=1000, metrics=None, error=None, **cell):
    """One cell as `kdiff sweep` writes it; a metric is its value or all of it."""
    cell = {
        "model": {"name": "cifar10", "sha256": "a" * 64},
        "sampler": sampler,
        "options": {},
        "schedule": "karras",
        "final": "zero",
        "steps": nfe,
        "nfe": nfe,
        "sigmas": [80.0, 1.0, 0.0],
        "seeds": {"first": first, "n": n},
        "metrics": ["FID"],
        "features": {"name": "inception", "resize": "legacy_tensorflow", "weights": "b" * 64},
        "reference": {"name": "cifar10", "n": 50000, "sha256": "c" * 64},
        **cell,
    }
    values = {
        name: value if isinstance(value, dict) else {"value": value, "error": None, "n": n}
        for name, value in (metrics or {}).items()
    }
    return {
        "key": json.dumps(cell),
        "cell": cell,
        "status": "failed" if error else "ok",
        "error": error,
        "metrics": values,
        "grid": None,
        "noise_floor": None,
        "environment": {"torch": "2.9.1"},
        "finished": "2026-11-21T17:00:00Z",
    }


def report(folder, *arguments):
    return CliRunner().invoke(command, [str(folder), *map(str, arguments)])


def a_full_sweep(sweep_of):
    lines = [
        a_line(sampler, nfe, first, metrics={"FID": value + first / 1000 + nfe / 10})
        for sampler, value in (("euler", 30.0), (HOSTILE, 20.0))
        for nfe in (5, 10)
        for first in (0, 1000)
    ]
    lines[0]["noise_floor"] = {"FID": 18.0}
    return sweep_of(*lines, a_line("heun", 9, error="not finite\nat step 3"))
