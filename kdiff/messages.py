"""Errors as one line of text, and the error that a setting would put right."""

from __future__ import annotations


class MissingSetting(ValueError):
    """A model's file does not say what `kdiff.load` needs, and could be told in a keyword."""


def one_line(error: BaseException, width: int = 120) -> str:
    """An exception's message (its name, if it has none) on one line of at most `width`."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= width else text[: width - 2] + " …"
