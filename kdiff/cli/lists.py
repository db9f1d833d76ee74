"""Options that take a list, such as `5,10,20`."""

from __future__ import annotations


def as_list(option: str, text: str) -> list[str]:
    """`a, b` -> ["a", "b"]. ValueError if there is nothing, or nothing between two commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(
            f"{option} takes one or more values, such as a,b, none of them empty, not {text!r:.100}"
        )
    return parts


def as_numbers(option: str, text: str) -> list[int]:
    """`5, 10` -> [5, 10]. ValueError if there is nothing, or something else."""
    try:
        return [int(part) for part in as_list(option, text)]
    except ValueError as error:
        message = f"{option} takes whole numbers such as 5,10,20, not {text!r:.100}"
        raise ValueError(message) from error


def as_budgets(option: str, text: str) -> list[int]:
    """Numbers of evaluations, `10, 5, 5` -> [5, 10]. ValueError if none, or one below 1."""
    found = sorted(set(as_numbers(option, text)))
    if found[0] < 1:
        raise ValueError(f"{option} takes numbers of evaluations from 1 on, not {text!r:.100}")
    return found
