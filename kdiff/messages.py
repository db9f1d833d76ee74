"""Errors as one line of text, and errors that another setting would put right."""

from __future__ import annotations


class MissingSetting(ValueError):
    """A model's file does not say what `kdiff.load` needs, and could be told in a keyword."""


class Unusable(ValueError):
    """A layer or a function that the user named turns out, as the network runs, not to do what it
    was named for: bad input, though it was not known before."""


def one_line(error: BaseException, width: int = 120) -> str:
    """An exception's message (its name, if it has none) on one line of at most `width`."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= width else text[: width - 2] + " …"
