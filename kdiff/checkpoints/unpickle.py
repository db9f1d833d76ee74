"""Pickles as inert data. This is an interpreter of its own for the few opcodes that a pickle of
tensors and settings consists of: nothing in it imports, calls or constructs what a file names.

A name in the pickle must be one of `OUTER` (of `STORAGE`, for the tensors inside) and stands for a
function of this module; every other name is refused. Bytes are not read but remembered as spans of
the file, a tensor is read when `Pickle.tensor` is called, and no length is believed before it has
been compared with the file's. Nothing is hashed, printed or compared that could be nested deeply.
Formats: CPython's pickletools.py for the opcodes; what torch.save wrote before its version 1.6 for
the bytes of a storage.
"""

from __future__ import annotations

import math
import os
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdiff.checkpoints import MissingSetting, one_line

MAX_OPCODES = 1_000_000  # the published networks have some 60 thousand
MAX_TEXT = 1 << 24
MAX_NAME = 1000
TORCH_MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
OPCODES = {op.code: op for op in pickletools.opcodes}
LENGTHS = {  # opcodes that are followed by a length and as many bytes
    "SHORT_BINBYTES": "<B",
    "BINBYTES": "<I",
    "BINBYTES8": "<Q",
    "SHORT_BINUNICODE": "<B",
    "BINUNICODE": "<I",
    "BINUNICODE8": "<Q",
}


class Span(NamedTuple):
    """Bytes of the file that have not been read."""

    start: int
    size: int


class Name(NamedTuple):
    """What a pickle calls by name; no more than that name."""

    name: str


@dataclass(eq=False)
class Record:
    """An object of the pickle: its class's name, what it was made of, its state."""

    name: str
    args: tuple = ()
    state: Any = None


@dataclass(eq=False)
class TensorRecord:
    """A tensor that has not been read: a view of the storage in `span`."""

    span: Span
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _persistent(meta: dict[str, Any]) -> Record:
    """An object of NVIDIA's torch_utils.persistence. Its `module_src`, a program, stays unread."""
    if type(meta["class_name"]) is not str:
        raise TypeError
    return Record(meta["class_name"], (), meta["state"])


def _tensor(span, offset, shape, stride, *_) -> TensorRecord:
    return TensorRecord(span, offset, shape, stride)


OUTER: dict[str, Callable[..., Any]] = {
    "builtins.set": lambda items: items,
    "collections.OrderedDict": lambda: {},
    "dnnlib.util.EasyDict": lambda: {},
    "numpy.core.multiarray._reconstruct": lambda *_: Record("numpy.ndarray"),
    "numpy._core.multiarray._reconstruct": lambda *_: Record("numpy.ndarray"),
    "numpy.core.multiarray.scalar": lambda *args: Record("numpy.scalar", args),
    "numpy._core.multiarray.scalar": lambda *args: Record("numpy.scalar", args),
    "numpy.dtype": lambda *args: Record("numpy.dtype", args),
    "numpy.ndarray": lambda *_: Record("numpy.ndarray"),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.nn.modules.container.ModuleDict": lambda: Record("ModuleDict"),
    "torch.storage._load_from_bytes": lambda span: span,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
}
STORAGE: dict[str, torch.dtype] = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
}


class Machine:
    """The stack machine of a pickle, over `file` up to `end`, for the names in `names`."""

    def __init__(self, file: BinaryIO, end: int, names: Mapping[str, Any]):
        self.file, self.end, self.names = file, end, names

    def run(self) -> Any:
        """The value of the pickle that starts where `file` stands. ValueError if it is damaged, or
        has an opcode or a name that such a pickle does not need."""
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        for _ in range(MAX_OPCODES):
            op = self._opcode()
            if op.name == "STOP":
                return self.stack.pop()
            self._step(op)
        raise ValueError(f"more than {MAX_OPCODES:,} opcodes")

    def _opcode(self) -> pickletools.OpcodeInfo:
        code = self.file.read(1).decode("latin-1")
        if not code or self.file.tell() > self.end:
            raise ValueError("it ends too soon")
        if code not in OPCODES:
            raise ValueError(f"it is damaged, or no pickle (byte {self.file.tell() - 1:,})")
        return OPCODES[code]

    def _step(self, op: pickletools.OpcodeInfo) -> None:
        stack, memo = self.stack, self.memo
        match op.name:
            case "PROTO" | "FRAME":
                self._argument(op)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(self._argument(op))
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                stack.append(self._text(self._span(op.name)))
            case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                stack.append(self._span(op.name))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                self.marks.append(len(stack))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._take(op.name)))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                self._append(self._take(op.name))
            case "SETITEM" | "SETITEMS":
                self._set(self._take(op.name))
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[self._argument(op)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[self._argument(op)])
            case "GLOBAL":
                stack.append(self._name(self._line(), self._line()))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._name(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, name = stack.pop(), stack.pop()
                stack.append(self._made(name, arguments))
            case "BUILD":
                self._build(stack.pop())
            case "BINPERSID" if self.names is STORAGE:
                pass  # the storage's description stays as it is
            case _:
                raise ValueError(f"it has the opcode {op.name}, which no network needs")

    def _argument(self, op: pickletools.OpcodeInfo) -> Any:
        assert op.arg
        return op.arg.reader(self.file)

    def _span(self, op: str) -> Span:
        """The bytes that follow a length; `file` then stands behind them."""
        length = LENGTHS[op]
        (size,) = struct.unpack(length, self.file.read(struct.calcsize(length)))
        span = Span(self.file.tell(), size)
        if span.start + size > self.end:
            raise ValueError(f"it ends too soon: {size:,} bytes should follow byte {span.start:,}")
        self.file.seek(span.start + size)
        return span

    def _text(self, span: Span) -> str:
        if span.size > MAX_TEXT:
            raise ValueError(f"it has a text of {span.size:,} bytes")
        return _read(self.file, span).decode("utf-8", "surrogatepass")

    def _line(self) -> str:
        line = self.file.readline(MAX_NAME)
        if not line.endswith(b"\n"):
            raise ValueError("it has a name without an end")
        return line[:-1].decode()

    def _take(self, op: str) -> list[Any]:
        """Pop what the opcode takes: one to three values, a key and its value, or up to a mark."""
        fixed = {"APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
        start = len(self.stack) - fixed[op] if op in fixed else self.marks.pop()
        if start < 0:
            raise IndexError
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _append(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target, keys = self.stack[-1], pairs[::2]
        # A tuple as a key, nested deeply enough, would overflow the interpreter's own stack.
        if type(target) is not dict or not all(type(key) in (str, int) for key in keys):
            raise TypeError
        target.update(zip(keys, pairs[1::2], strict=True))

    def _name(self, module: Any, name: Any) -> Name:
        if type(module) is not str or type(name) is not str:
            raise TypeError
        full = f"{module}.{name}"
        if full not in self.names:
            raise ValueError(f"it has the name {full[:80]!r}, which no network needs")
        return Name(full)

    def _made(self, name: Any, arguments: Any) -> Any:
        if type(name) is not Name or type(arguments) is not tuple or self.names is not OUTER:
            raise TypeError
        return OUTER[name.name](*arguments)

    def _build(self, state: Any) -> None:
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state
        elif state:  # an EasyDict has an empty one
            raise TypeError


class Pickle:
    """The pickle in `file`: `value` is what it holds, made of dicts, lists, tuples, numbers, texts,
    `Span`, `Record` and `TensorRecord`. See `opened`."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.value = Machine(file, os.fstat(file.fileno()).st_size, OUTER).run()
        self.used: set[Span] = set()

    def tensor(self, record: TensorRecord) -> Tensor:
        """Read a tensor. ValueError for a damaged one, for a second one on the same storage, and
        for one that would need more memory than it has in the file."""
        kind, start, count = self._storage(record.span)
        _check_view(record, count)
        raw = _memory(count * kind.itemsize)
        self.file.seek(start)
        if self.file.readinto(raw) != len(raw):  # type: ignore[attr-defined]
            raise ValueError("it ends too soon")
        flat = torch.frombuffer(raw, dtype=kind)
        return flat.as_strided(record.shape, record.stride, record.offset)

    def array(self, record: Record) -> np.ndarray:
        """A numpy array of numbers."""
        _, shape, dtype, fortran, span = record.state
        kind = np.dtype(dtype.args[0])
        if kind.kind not in "fiu" or type(span) is not Span:
            raise ValueError("it has an array of something else than numbers")
        flat = np.frombuffer(_read(self.file, span), kind)
        return flat.reshape(shape, order="F" if fortran else "C")

    def _storage(self, span: Span) -> tuple[torch.dtype, int, int]:
        """The dtype of a storage, where its values start in the file, and how many there are: five
        pickles (the last but one describes it), the number of values, the values."""
        if type(span) is not Span or span in self.used:  # shared, the file's size would say nothing
            raise ValueError("it has a tensor without a storage of its own")
        self.used.add(span)
        end = span.start + span.size
        self.file.seek(span.start)
        magic, protocol, system, storage, _ = (
            Machine(self.file, end, STORAGE).run() for _ in range(5)
        )
        if magic != TORCH_MAGIC or protocol != TORCH_PROTOCOL or not system["little_endian"]:
            raise ValueError("it has a storage that is not of torch.save and little-endian")
        _, name, _, _, claimed, view = storage
        dtype, (count,) = STORAGE[name.name], struct.unpack("<Q", self.file.read(8))
        start = self.file.tell()
        if claimed != count or view is not None or count * dtype.itemsize != end - start:
            raise ValueError(f"it has a storage of {span.size:,} bytes for {count:,} values")
        return dtype, start, count


def _memory(size: int) -> mmap:
    """Memory that goes back to the system, all of it, when it is let go."""
    try:
        return mmap(-1, size)
    except OSError as error:
        raise MemoryError(error) from error


def _read(file: BinaryIO, span: Span) -> bytes:
    file.seek(span.start)
    return file.read(span.size)


def _check_view(record: TensorRecord, count: int) -> None:
    """ValueError unless the tensor is inside its storage of `count` values, and has no more
    elements than that (an expanded one has, and grows when it is copied)."""
    shape, stride = record.shape, record.stride
    if not all(type(n) is int and n >= 0 for n in (record.offset, *shape, *stride)):
        raise TypeError
    elements = math.prod(shape)
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if not 0 < elements <= count or record.offset + reach > count:
        raise ValueError(f"it has a tensor of {elements:,} values in a storage of {count:,}")


@contextmanager
def opened(path: str | Path) -> Iterator[Pickle]:
    """The `Pickle` in the file at `path`. Whatever is wrong with the file, there or in the block
    that reads from it, is a ValueError in one line."""
    try:
        with open(path, "rb") as file:
            yield Pickle(file)
    except MissingSetting as error:
        raise MissingSetting(f"{path}: {error}") from error
    except ValueError as error:
        reason = one_line(error, 200)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        struct.error,
    ) as error:
        reason = f"damaged, or no network's pickle ({type(error).__name__}: {one_line(error, 160)})"
    else:
        return
    raise ValueError(f"{path} was not loaded, and nothing in it ran: {reason}")
