"""Whether figures against a reference can be compared with those of papers and of other runs."""

from __future__ import annotations

from kdiff.eval.features import FeatureNetwork
from kdiff.eval.references.reference import Label
from kdiff.eval.references.stored import network_and_mode


def check_comparable(reference: Label, network: FeatureNetwork) -> list[str]:
    """Warnings: the reference's own notes, and what it does not record, and so is assumed.
    ValueError, in one line, if it was made with another network, resize mode or weights."""
    notes = list(getattr(reference, "notes", ()))
    pairs = {
        "feature network": (reference.features, network.name),
        "resize mode": (reference.resize, network.resize),
        "weights": (reference.weights, network.weights),
    }
    for what, (theirs, ours) in pairs.items():
        if theirs is not None and theirs != ours:
            raise ValueError(
                f"reference {reference.name} was made with {what} {theirs[:20]}, this is "
                f"{str(ours)[:20]}: their figures cannot be compared"
            )
    missing = [what for what, (theirs, ours) in pairs.items() if theirs != ours]
    missing += ["number of images"] * (reference.n is None)
    if missing:
        assumed = network_and_mode(network.name, network.resize)
        notes.append(
            f"{reference.name} does not record its {', '.join(missing)}: taken as {assumed}"
        )
    return notes
