"""Options: how an author's keywords are read, and what is said of a wrong value."""

from typing import Annotated, Literal

import pytest

from kdiff.options import Option, options_of


def author(
    *,
    file: Annotated[str, Option("another model")] = "none",
    most: Annotated[int, Option("bound from above", high=4)] = 2,
    least: Annotated[float, Option("bound from below", 0)] = 1.0,
    share: Annotated[float, Option("both", 0, 1)] = 0.5,
    free: Annotated[float, Option("neither")] = 0.5,
    yes: Annotated[bool, Option("a switch")] = False,
    kind: Annotated[Literal["a", "b"], Option("one of them")] = "a",
): ...


@pytest.mark.parametrize(
    ("name", "wrong", "allowed"),
    [
        ("most", 5, "a whole number, at most 4"),
        ("least", -1, "a number, at least 0"),
        ("share", 2, "a number from 0 to 1"),
        ("free", "x", "a number"),
        ("free", "nan", "a number"),
        ("free", "-inf", "a number"),
        ("yes", "perhaps", "true or false"),
        ("kind", "c", "a or b"),
    ],
)
def test_a_wrong_value_is_told_what_is_allowed(name, wrong, allowed):
    with pytest.raises(ValueError) as raised:
        options_of(author)[name].parse(wrong)
    assert str(raised.value) == f"{name} must be {allowed}, not {wrong!r}"


def test_text_is_taken_as_it_is():
    option = options_of(author)["file"]
    assert (option.allowed(), option.parse("runs/small.pt")) == ("text", "runs/small.pt")
