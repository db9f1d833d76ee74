"""Functions and objects of the user's own, named as `module:name`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from kdiff.messages import Unusable, one_line


def named(kind: str, name: str, load: Callable[[str], Any] | None = None) -> Callable[..., Any]:
    """What `module:name` names, of a module that is installed or in the current folder; `load`
    finds it in another way. `kind` says in errors what it is to be. ValueError if there is none, if
    its module cannot be imported, or if it cannot be called."""
    try:
        found = (load or imported)(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no {kind} {name!r}: {one_line(error, 300)}") from error
    except (Exception, SystemExit) as error:  # `exit(0)` would pass for success
        reason = f"{type(error).__name__}: {one_line(error, 300)}"
        raise ValueError(f"{kind} {name!r} cannot be imported: {reason}") from error
    if not callable(found):
        raise ValueError(f"{kind} {name!r} is {type(found).__name__}, not a function")
    return found


def called(who: str, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`. Unusable, with the error in one line, if it fails; a lack of memory is
    left to whoever can do with less."""
    import torch

    try:
        return function(*args)
    except torch.OutOfMemoryError:
        raise
    except (Exception, SystemExit) as error:  # `exit(0)` would pass for success
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        raise Unusable(f"{who} fails: {reason}") from error


def imported(name: str) -> Any:
    """The object that `module:name` names; the errors are the import's own."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where `python -m kdiff` would look too
    return getattr(importlib.import_module(module), attribute)
