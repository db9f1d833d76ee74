"""A certificate in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = (
    *("sampler", "order", "strong", "weak", "moments", "NFE", "error at 5 10 20 50"),
    *("few", "same", "split", "inverts", "parity", "settings"),
)


def row(certificate: Mapping[str, Any]) -> dict[str, str]:
    """What the default finds (its ODE order at the settings without noise); the largest difference
    to another implementation; and how many settings pass."""
    settings = certificate["settings"]
    findings = settings[0]["findings"]
    passed = sum(not any(f["failure"] for f in one["findings"].values()) for one in settings)
    words = f"{passed} pass" if passed == len(settings) else f"{len(settings) - passed} FAIL"
    return {
        "sampler": certificate["sampler"],
        "order": _claimed(findings.get("order") or findings.get("tolerance")),
        "strong": _claimed(_any(settings, "strong")),
        "weak": _claimed(_any(settings, "weak")),
        "moments": _text(_any(settings, "moments")),
        "NFE": _text(findings.get("nfe")),
        "error at 5 10 20 50": _text(findings.get("errors")),
        "few": _text(findings.get("few steps")),
        "same": _text(findings.get("invariance")),
        "split": _text(findings.get("split")),
        "inverts": _text(findings.get("round trip")),
        "parity": parity(certificate["parity"]),
        "settings": words,
    }


def parity(rows: Sequence[Mapping[str, Any]]) -> str:
    """The largest difference, and with how many implementations."""
    if not rows:
        return "-"
    return f"{max(row['difference'] for row in rows):.0e} ({len(rows)})"


def _any(settings: Sequence[Mapping[str, Any]], measure: str) -> Mapping[str, Any] | None:
    """Of the first setting of which it could be measured."""
    found = (setting["findings"].get(measure) for setting in settings)
    return next((finding for finding in found if finding is not None), None)


def _claimed(finding: Mapping[str, Any] | None) -> str:
    if finding is None or "declared" not in finding:
        return _text(finding)
    return f"{finding['text']} ({finding['declared']:g})"


def _text(finding: Mapping[str, Any] | None) -> str:
    return "-" if finding is None else finding["text"]
