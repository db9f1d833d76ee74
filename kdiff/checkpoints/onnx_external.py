"""The files beside an ONNX model that hold its tensors, as its protobuf names them.

The search covers all messages that can hold a tensor: also those in graphs of attributes, in
functions and in sparse tensors. Formats: protobuf's encoding; onnx.proto for the numbers of fields.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kdiff.downloads import check_file

HOLDS: dict[str, dict[int, str]] = {  # message -> number of a field -> message in it
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        **{5: "Tensor", 6: "Graph", 22: "SparseTensor"},
        **{10: "Tensor", 11: "Graph", 23: "SparseTensor"},
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "StringStringEntry"},
}
_KEY, VALUE = 1, 2  # of a StringStringEntry
_FIXED = {1: 8, 5: 4}  # wire type -> bytes
_MAX_SIZE = 1 << 31  # protobuf's
MAX_FIELDS = 1_000_000  # Stable Diffusion's network has about 100 thousand


def external_files(path: Path) -> list[Path]:
    """All files beside the model at `path` that hold its tensors.

    ValueError if one of them is not in the model's folder or below it, by name or through a link,
    or if the model is damaged.
    """
    if path.stat().st_size >= _MAX_SIZE:
        raise ValueError(f"{path} is larger than an ONNX model can be")
    try:
        locations = sorted({value.decode() for value in _locations(path.read_bytes())})
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged, or no ONNX model") from error
    return list(dict.fromkeys(_inside(path, location) for location in locations))


def _inside(path: Path, location: str) -> Path:
    named, file = Path(location), path.parent / location
    # onnxruntime marks an address in memory with a star.
    if named.is_absolute() or ".." in named.parts or "*" in location:
        wrong = "which is not a name in the model's folder"
    elif not os.path.isfile(file):
        wrong = "and there is no such file"
    elif not file.resolve().is_relative_to(path.parent.resolve()):
        wrong = "a link that leads out of the model's folder: put the file itself there"
    else:
        check_file(file)
        return file
    raise ValueError(f"{path} has weights in {location[:200]!r}, {wrong}")


def _locations(data: bytes) -> Iterator[bytes]:
    """Where tensors are. A field that wrongly occurs twice is found twice, though used once."""
    pending = [("Model", 0, len(data))]
    fields = 0
    while pending:
        message, start, end = pending.pop()
        texts: dict[int, list[bytes]] = {_KEY: [], VALUE: []}
        for number, first, last in _fields(data, start, end):
            fields += 1
            if fields > MAX_FIELDS:
                raise ValueError("more fields than a network needs")
            if message == "StringStringEntry" and number in texts:
                texts[number].append(data[first:last])
            elif number in HOLDS.get(message, {}):
                pending.append((HOLDS[message][number], first, last))
        if b"location" in texts[_KEY]:
            yield from texts[VALUE]


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number of each field from `position` to `end`, and where its content starts and ends.
    A number has no content: both are its end."""
    while position < end:
        tag, position = _varint(data, position)
        number, wire_type = (tag & 0xFFFFFFFF) >> 3, tag & 7
        size = _FIXED.get(wire_type, 0)
        if wire_type in (0, 2):
            value, position = _varint(data, position)
            size = value if wire_type == 2 else 0
        elif wire_type not in _FIXED:
            raise ValueError("a wire type that ONNX does not use")
        if position + size > end:
            raise ValueError("it ends too soon")
        yield number, position if wire_type == 2 else position + size, position + size
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number without an end")
