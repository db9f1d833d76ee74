"""Seeded damage: bytes, and the insides of zips, JSON, safetensors and PNG, with what guards them
(checksums, lengths) made to fit again, so that damage gets past the first check."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

INTEGERS = (0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NUMBERS = (b"0", b"-1", b"1", b"7", b"99999999", b"1e308", b"1e999", b"-1e-320", b"NaN", b"9" * 40)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 10**6, 10**12, 10**30, 0.5, -2.5, 1e308, float("nan")),
    *(float("inf"), "", "x", "../../../../etc/passwd", "\x00", "é", "x" * 5000, "os.system"),
    *([], {}, [[]], [None], {"a": {}}, [0] * 1000, ["x", 1, None], {"": 0}, [1e9, 1e9, 1e9]),
)
Mutation = Callable[[bytes, random.Random], bytes]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        changed[_place(data, rng)] = rng.randrange(256)
    return bytes(changed)


def number(data: bytes, rng: random.Random) -> bytes:
    """A binary integer of one to eight bytes replaced by a telling one."""
    size, at = rng.choice((1, 2, 4, 8)), _place(data, rng)
    value = rng.choice(INTEGERS) % 2 ** (8 * size)
    return data[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def digits(data: bytes, rng: random.Random) -> bytes:
    """A number in text replaced by a telling one."""
    found = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?", data[:20_000]))
    if not found:
        return flip(data, rng)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBERS) + data[match.end() :]


def moved(data: bytes, rng: random.Random) -> bytes:
    """A stretch left out, doubled, or put elsewhere."""
    a, b = sorted((_place(data, rng), _place(data, rng)))
    piece, at = data[a : min(b, a + 2000)], _place(data, rng)
    return rng.choice((data[:a] + data[b:], data[:b] + piece + data[b:], data[:at] + piece))


def word(data: bytes, rng: random.Random) -> bytes:
    """A name in the data replaced by another one of it, or a mark doubled."""
    found = list(re.finditer(rb"[A-Za-z_][A-Za-z0-9_.]{2,}|[\[\]{}():,&*-]", data[:20_000]))
    if len(found) < 2:
        return flip(data, rng)
    a, b = rng.choice(found), rng.choice(found)
    return data[: a.start()] + b[0] * rng.choice((1, 1, 1, 3)) + data[a.end() :]


BYTES: tuple[Mutation, ...] = (cut, flip, flip, number, number, digits, moved, word)


def some_bytes(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(BYTES)(data, rng)


def _place(data: bytes, rng: random.Random) -> int:
    """Mostly near the beginning, where headers are."""
    if not data:
        return 0
    return rng.randrange(len(data) if rng.random() < 0.3 else min(len(data), 2000))


def in_zip(data: bytes, rng: random.Random) -> bytes:
    """One member changed, and the checksums right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    change = rng.randrange(8)
    content = members.pop(name) if change == 0 else members[name]
    if change == 1:
        members["../" * 9 + name] = members.pop(name)
    elif change == 2:
        members[name] = bytes(rng.choice((0, 1, 10_000_000)))
    elif change == 3:
        members[rng.choice(sorted(members))] = content
    elif change > 3:
        members[name] = structured(name, content, rng)
    packed = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    return buffer.getvalue()


def in_json(data: bytes, rng: random.Random) -> bytes:
    """One value or key of it changed."""
    tree = json.loads(data)
    nodes = list(_nodes(tree))
    if not nodes:
        return json.dumps(rng.choice(VALUES)).encode()
    parent, key = rng.choice(nodes)
    change = rng.randrange(6)
    if change == 0:
        del parent[key]
    elif change == 1:
        other, place = rng.choice(nodes)
        parent[key] = json.loads(json.dumps(other[place]))
    elif change == 2 and isinstance(parent, dict):
        parent[rng.choice(("x", "", "name", "__class__", "a" * 300))] = parent.pop(key)
    else:
        parent[key] = rng.choice(VALUES)
    text = json.dumps(tree)
    if rng.random() < 0.03:
        text = text.replace("null", "[" * 100_000, 1)
    return text.encode()


def _nodes(tree: Any) -> Any:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(pairs) if isinstance(tree, dict | list) else ():
        yield tree, key
        if isinstance(value, dict | list):
            yield from _nodes(value)


def in_lines(data: bytes, rng: random.Random) -> bytes:
    """One line of JSON changed."""
    lines = data.splitlines()
    i = rng.randrange(len(lines))
    lines[i] = in_json(lines[i], rng)
    return b"\n".join(lines) + b"\n"


def in_yaml(data: bytes, rng: random.Random) -> bytes:
    """One value changed, or aliases and tags where a value was."""
    lines = data.decode().splitlines()
    i = rng.randrange(len(lines))
    key = lines[i].partition(":")[0]
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    odd = ("!!python/object/apply:os.system [id]", "&a [*a]", "[" * 100_000, "{x: [", "|", "2026-1")
    kind = rng.randrange(4)
    if kind == 0:
        lines[i] = f"{key}: {rng.choice(odd)}"
    elif kind == 1:
        lines[i] = f"{key}: {json.dumps(rng.choice(VALUES))}"
    elif kind == 2:
        lines[i] = f"{key}: {rng.choice(NUMBERS).decode()}"
    else:
        lines.insert(i, rng.choice((f"a0: &a0 [x]\n{bomb}", "? [1, 2]\n: x", "---", "\t- x")))
    return "\n".join(lines).encode() + b"\n"


def in_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header changed, and its length right."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    inside = [key for key, text in metadata.items() if text.startswith("{")]
    if inside and rng.random() < 0.7:
        metadata[inside[0]] = in_json(metadata[inside[0]].encode(), rng).decode()
        changed = json.dumps(header).encode()
    else:
        changed = in_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(changed)) + changed + data[8 + length :]


def in_png(data: bytes, rng: random.Random) -> bytes:
    """One chunk changed, and its checksum right."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    i = rng.choice((0, 0, rng.randrange(len(chunks))))
    kind, content = chunks[i]
    chunks[i] = kind, number(content, rng)
    parts = [
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    ]
    return data[:8] + b"".join(parts)


def _like(name: str, data: bytes) -> Mutation:
    if data[:2] == b"PK":
        return in_zip
    if data[:4] == b"\x89PNG":
        return in_png
    by_suffix = {
        ".json": in_json,
        ".jsonl": in_lines,
        ".yaml": in_yaml,
        ".safetensors": in_safetensors,
    }
    return next((f for end, f in by_suffix.items() if name.endswith(end)), some_bytes)


def structured(name: str, data: bytes, rng: random.Random) -> bytes:
    """Damage of the kind that the file's own format allows; of its bytes, if it has none."""
    try:
        return _like(name, data)(data, rng)
    except Exception:  # an earlier round may have left anything
        return some_bytes(data, rng)


def mutated(name: str, data: bytes, rng: random.Random) -> bytes:
    """`data` of the file `name`, damaged one to three times."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = structured(name, data, rng) if rng.random() < 0.6 else some_bytes(data, rng)
    return data
