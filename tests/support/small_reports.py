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


def guided(*guidance, **cell):
    """What `a_line` needs of a guided cell: guided(("cfg", {"scale": 1.5}), asks=5)."""
    return {"guidance": [{"name": name, "options": options} for name, options in guidance], **cell}


def a_scale_sweep(sweep_of):
    """Two samplers at scales 1, 2 and 3, which cost 4, 8 and 8 evaluations; the FID is the lowest
    at 2 by Euler and at 3 by Heun, and the larger scale always has the higher IS."""
    fid = {"euler": {1: 30.0, 2: 20.0, 3: 25.0}, "heun": {1: 29.0, 2: 22.0, 3: 21.0}}
    lines = [
        a_line(
            sampler,
            4 if scale == 1 else 8,
            metrics={"FID": {"value": value, "error": 0.5, "n": 1000}, "IS": 5.0 + scale},
            **guided(("cfg", {"scale": float(scale)}), steps=4),
        )
        for sampler, values in fid.items()
        for scale, value in reversed(values.items())
    ]
    return sweep_of(*lines)
