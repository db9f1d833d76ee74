"""Paths as people write them and text files as people save them. Files are written whole or not at
all, and JSON so that every parser reads it."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdiff.downloads import check_file

LONGEST_NAME = 255  # bytes
MOST_TEXT = 2**24  # bytes of a text file; configurations have thousands
MOST_YAML = 2**20
MOST_DIGITS = 4300  # of a number in YAML, Python's own limit; longer numbers take minutes
MOST_NODES = 100_000  # of YAML, with each alias counted as the value that it stands for
EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")

FilePath = str | os.PathLike[str]


def user_path(path: FilePath) -> Path:
    """The path with a leading `~` or `~user` expanded, as a shell does. Every path that a person
    gives comes through here, maybe twice, so `./~`, which names a file, is returned in full.

    ValueError if it is empty (an unset variable, say), if it holds a NUL or a name longer than file
    systems take, or if the `~` has no home folder.
    """
    text = os.fspath(path)
    if not text.strip():
        raise ValueError("a path is empty: the current folder is `.`")
    if "\0" in text:
        raise ValueError(f"a path cannot hold a NUL: {text!r:.100}")
    text = _in_locale(text)
    if max(map(len, os.fsencode(text).split(b"/"))) > LONGEST_NAME:
        raise ValueError(f"a name in this path is too long: {text:.80}..")
    expanded = Path(os.path.expanduser(text))
    if not str(expanded).startswith("~"):
        return expanded
    if text.partition("/")[0] == "~":
        raise ValueError(f"{text}: this user has no home folder; set HOME")
    return expanded.absolute()


def _in_locale(text: str) -> str:
    """A name from a UTF-8 file as Python spells the same bytes where the locale is not UTF-8.
    ValueError if it has no bytes."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text


def read_text(path: FilePath, most: int = MOST_TEXT) -> str:
    """The text of a UTF-8 file, whatever the locale, with or without a byte-order mark.

    ValueError if it is not UTF-8 or has more than `most` bytes, OSError if it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(most + 1)  # it may be a pipe or a device, whose size is not known
    if len(data) > most:
        raise ValueError(f"{path} is too large for a text file: more than {most:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from error


def parse_json(text: str, where: object, finite: bool = False, unique: bool = False) -> Any:
    """The value of a JSON text; `where` begins the messages. Python's NaN and Infinity are read,
    unless all numbers must be `finite`; of a key that comes twice the last counts, unless all must
    be `unique`. ValueError, in one line, if it is not JSON."""
    number = _finite_number if finite else float
    pairs = _unique if unique else None
    try:
        return json.loads(text, parse_constant=number, parse_float=number, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError(
            f"{where} is not JSON that kdiff reads: it is nested too deeply"
        ) from error
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error


def read_json(path: FilePath, most: int = MOST_TEXT) -> Any:
    """The value in a JSON file. ValueError as `check_file`, `read_text` and `parse_json`."""
    check_file(path)
    return parse_json(read_text(path, most), path)


def parse_yaml(text: str, where: object) -> Any:
    """The value of a YAML text, with plain types only; `where` begins the messages.

    ValueError, in one line, if it is not YAML, or if its aliases make it grow beyond reason.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Counts nodes as if each alias were a copy of the value that it stands for."""

        nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            alias, before = self.check_event(yaml.AliasEvent), self.nodes
            node = super().compose_node(parent, index)
            self.nodes += sizes.get(id(node), MOST_NODES) if alias else 1
            if self.nodes > MOST_NODES:
                raise yaml.YAMLError("it has too many values, or aliases without end")
            number = node if node and node.tag.endswith((":int", ":float")) else None
            if number and len(number.value) > MOST_DIGITS:
                raise yaml.YAMLError(f"a number has more than {MOST_DIGITS:,} digits")
            if not alias:
                sizes[id(node)] = self.nodes - before
            return node

    # 1e-3 is text in YAML 1.1, which wants 1.0e-3.
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))
    sizes: dict[int, int] = {}
    try:
        return yaml.load(text, Loader)
    except RecursionError as error:
        raise ValueError(
            f"{where} is not YAML that kdiff reads: it is nested too deeply"
        ) from error
    except Exception as error:  # a bad date, or `!!int x`, can raise anything
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: FilePath, most: int = MOST_YAML) -> Any:
    """The value in a YAML file. ValueError as `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path, most), path)


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.80} comes twice")
        found[key] = value
    return found


@contextmanager
def whole_file(path: FilePath) -> Iterator[Path]:
    """A temporary path beside `path` (same suffix), renamed over it when the block succeeds and
    removed when it fails, so that no reader ever sees half a file.

    OSError, with the name of `path`, if the disk is full or does not let it be written, or if it is
    a device or such, which a file must not take the place of.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is not a file that can be replaced", str(path))
    with _named(path):
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors in writing a file become an OSError that names the file. Most libraries name no file,
    or a temporary one, and safetensors raises an error of its own kind."""
    try:
        yield
    except OSError as error:
        hidden = error.filename is None or Path(os.fsdecode(error.filename)).parent == path.parent
        if isinstance(error, ConnectionError | TimeoutError) or not hidden:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None or type(error).__name__ != "SafetensorError":
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def write_json(path: FilePath, value: Any) -> None:
    """Write it as `to_json` does, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(to_json(value) + "\n", encoding="utf-8")


def to_json(value: Any, indent: int | None = 1, sort_keys: bool = False) -> str:
    """JSON that every parser reads. JSON has no infinity, so it is written as "inf"; NaN is a
    ValueError."""
    return json.dumps(_finite(value), indent=indent, sort_keys=sort_keys, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return str(value) if value in (math.inf, -math.inf) else value
