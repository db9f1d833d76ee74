"""What has become worse since certificates that were stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdiff.certificates.certificate import Certificate
from kdiff.files import FilePath, parse_json, read_text, to_json

MARGIN = 1.1  # times an error: machines round differently, and at few steps that shows
ORDER = 0.1  # of a measured order, which has an error of its own
SMALLEST = 1e-9  # errors below are rounding
MOST_TEXT = 2**26
Plain = Mapping[str, Any]


def to_text(certificates: Sequence[Certificate]) -> str:
    """JSON with one setting a line, so that differences can be read."""
    blocks = []
    for one in certificates:
        plain = one.as_dict()
        settings = ",\n".join("  " + _compact(setting) for setting in plain.pop("settings"))
        blocks.append(f'{_compact(plain)[:-1]}, "settings": [\n{settings}\n ]}}')
    return '{"certificates": [\n' + ",\n".join(blocks) + "\n]}\n"


def _compact(value: Any) -> str:
    return to_json(value, indent=None)


def read(path: FilePath) -> list[Plain]:
    """The certificates in a file that `to_text` made. ValueError if it is no such file."""
    found = parse_json(read_text(path, MOST_TEXT), path)
    if not isinstance(found, dict) or not isinstance(found.get("certificates"), list):
        raise ValueError(f"{path} has no certificates: write it with kdiff certify --json FILE")
    return found["certificates"]


def regressions(stored: Sequence[Plain], found: Sequence[Plain]) -> list[str]:
    """What is worse, a line each: a sampler or a setting that is gone, a measure that is gone or
    fails now, an order that fell, other numbers of evaluations, and errors that grew by more than
    a tenth."""
    now = {one["sampler"]: one for one in found}
    lines: list[str] = []
    for one in stored:
        name = one["sampler"]
        if name not in now:
            lines.append(f"{name} is gone")
            continue
        settings = {setting["label"]: setting for setting in now[name]["settings"]}
        for setting in one["settings"]:
            label = setting["label"]
            if label not in settings:
                lines.append(f"{name}: the setting {label} is gone")
                continue
            worse = _worse(setting["findings"], settings[label]["findings"])
            lines += [f"{name}, {label}: {words}" for words in worse]
    return lines


def _worse(stored: Plain, found: Plain) -> Iterator[str]:
    for measure, then in stored.items():
        now = found.get(measure)
        if now is None:
            yield f"{measure} is not measured any more"
        elif now["failure"]:
            if not then["failure"]:
                yield now["failure"]
        else:
            yield from COMPARISONS.get(measure, _same)(measure, then, now)


def _order(measure: str, then: Plain, now: Plain) -> Iterator[str]:
    for key in ("declared", "measured"):
        if key in then and key in now and now[key] < then[key] - ORDER:
            yield f"the {measure} fell from {then[key]:.3g} to {now[key]:.3g} ({key})"


def _counts(measure: str, then: Plain, now: Plain) -> Iterator[str]:
    for final in ("zero", "sigma_min"):
        if then[final] != now[final]:
            yield f"evaluations to {final} were {then[final]}, and are {now[final]}"


def _errors(measure: str, then: Plain, now: Plain) -> Iterator[str]:
    for problem in then.keys() - {"text", "failure"}:
        errors = {int(nfe): error for nfe, error in now.get(problem, [])}
        for nfe, error in then[problem]:
            grown = errors.get(int(nfe))
            if grown is None or _grew(error, grown):
                yield f"the error on {problem} at {nfe} evaluations grew from {error} to {grown}"


def _growth(measure: str, then: Plain, now: Plain) -> Iterator[str]:
    if _grew(then["growth"], now["growth"]):
        yield f"results at few steps grew from {then['growth']} to {now['growth']} times the data"


def _round_trip(measure: str, then: Plain, now: Plain) -> Iterator[str]:
    for steps, error, grown in zip(then["steps"], then["errors"], now["errors"], strict=False):
        if _grew(error, grown):
            yield f"the round trip of {steps} steps grew from {error} to {grown}"


def _split(measure: str, then: Plain, now: Plain) -> Iterator[str]:
    if then["text"] == "free" and now["text"] != "free":
        yield "a run cannot be split any more"


def _same(measure: str, then: Plain, now: Plain) -> Iterator[str]:
    return iter(())


def _grew(then: float | None, now: float | None) -> bool:
    if then is None:
        return False
    return now is None or now > MARGIN * then + SMALLEST


COMPARISONS = {
    "order": _order,
    "strong": _order,
    "weak": _order,
    "tolerance": _order,
    "nfe": _counts,
    "errors": _errors,
    "few steps": _growth,
    "round trip": _round_trip,
    "split": _split,
}
